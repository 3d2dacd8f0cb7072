"""SiamMask (Wang et al., CVPR 2019, arXiv:1812.05050): follows an object and its mask through a video."""
