"""Rounds of labeling: predict, correct in Labelme, train on, and say whether it helped."""
