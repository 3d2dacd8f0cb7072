"""What every finding means and what to do about it, in the words of ``docs/findings.md``."""

WORDS = {
    "bad_json": (
        "The file is no JSON: cut off, empty, or wrong at the line and column given; or it cannot be read, has "
        "more than 2 GB, or is nested more than 100 levels deep.",
        "Restore it from a backup, or delete it and annotate the image again.",
    ),
    "bad_xml": (
        "The file is no XML, or declares a document type.",
        "As for `bad_json`.",
    ),
    "bad_shape": (
        "A shape, annotation or category is no object, has no label, or has no usable id.",
        "Look at the entry named and mend or delete it.",
    ),
    "bad_point": (
        "Points are not pairs of numbers, or lie farther out than any image reaches.",
        "Draw the shape again.",
    ),
    "non_finite_coordinate": (
        "A coordinate is NaN or infinite.",
        "Draw the shape again.",
    ),
    "outline_too_complex": (
        "An outline is longer than four million pixels on the image, comes in over one border of it more than "
        "10,000 times, or has edges that pass one another so often (20 million pairs, as with a million points in "
        "a spiral) that they cannot be checked.",
        "Draw the shape again, or simplify it.",
    ),
    "group_too_large": (
        "Thousands of parts of one group lie on top of one another: more than 100,000 pairs, the box of one "
        "inside the other's, and which lie inside which is not worked out.",
        "Give separate objects group numbers of their own.",
    ),
    "wrong_point_count": (
        "A rectangle or circle has not 2 points, an oriented rectangle not 4, a mask not 2.",
        "Draw the shape again, or give it the type that its points have.",
    ),
    "mask_missing": (
        "A mask shape holds no mask, or the mask file that is named is not there.",
        "Draw it again, or bring the file.",
    ),
    "mask_undecodable": (
        "A mask is no PNG, cannot be decoded, has more than 89 million pixels (in color: 134 million values), or "
        "has colors where values are expected.",
        "Save it again as a palette or gray PNG.",
    ),
    "bad_rle": (
        "Run-length text that cannot be meant: an odd count, a zero, a run beyond the image, two that overlap, or "
        "the wrong columns.",
        "Mend the line named, or choose another `--preset`.",
    ),
    "image_missing": (
        "The image is not at the path named, or lies outside the data root, and `imageData` holds none.",
        "Move it, name its folder with `--image-root`, or allow other folders with `--allow-outside`.",
    ),
    "image_unreadable": (
        "The image is empty, cut off, no image, or claims a size that cannot be meant.",
        "Replace the image.",
    ),
    "size_mismatch": (
        "The annotation file states another size than the image has, so it was made for another image or another copy.",
        "Find the image that was annotated.",
    ),
    "size_swapped_exif": (
        "The stated size is that of the image before its EXIF orientation turns it; the shapes would lie beside "
        "their objects.",
        "Annotate the image as it is shown.",
    ),
    "duplicate_image": (
        "Two annotation files, or two entries, are about one image.",
        "Keep one of them.",
    ),
    "unknown_label": (
        "The label is not in the list of classes; the hint is the nearest one that is.",
        "Correct the label, or add it to the labels.",
    ),
    "no_class": (
        "A region or mask does not say its class.",
        "Name it with `--class-name`, or the attribute that holds it with `--class-attribute`.",
    ),
    "label_missing": (
        "An image has no label image of its name.",
        "Label it, move it away, or take it as it is with `--include-unlabeled`.",
    ),
    "unknown_label_value": (
        "A label image holds values that stand for no class; the message says which, and how many pixels have them.",
        "Add them to the classes, or leave them out with `null` in `data.label_images.values`.",
    ),
    "channels_differ": (
        "An image has another number of channels than the others of its part.",
        "Bring the missing channels, or name those to use in `data.label_images.channels`.",
    ),
    "all_left_out": (
        "Every pixel of a label image is left out, so the image teaches nothing.",
        "Label it, move it away, or leave it out with `data.skip_bad`.",
    ),
    "nothing_labeled": (
        "Every pixel of every label image is left out, so there is nothing to learn.",
        "Check `data.label_images.values`, or label some images.",
    ),
    "clipped": (
        "A shape sticks out of the image and was cut at its border.",
        "Nothing, if the object goes on beyond the image.",
    ),
    "outside_image": (
        "A shape lies outside the image and was dropped.",
        "Delete it.",
    ),
    "too_few_points": (
        "A polygon has fewer than three points and was dropped.",
        "Delete it or draw it again.",
    ),
    "zero_area": (
        "A shape encloses nothing and was dropped: its points lie on one line or in one place.",
        "Delete it or draw it again.",
    ),
    "rasterizes_empty": (
        "A shape covers no pixel, or the holes of its group leave nothing of it, and was dropped.",
        "Delete it, or use images of a higher resolution.",
    ),
    "self_intersection": (
        "An outline crosses itself; what it goes round an even number of times is not part of the object.",
        "Draw it again where the loop matters.",
    ),
    "unsupported_shape_type": (
        "A line, a point or an unknown type has no area and was skipped.",
        "Nothing, or draw the area.",
    ),
    "group_part_nested": (
        "A part of a group lies inside another one and was united with it.",
        "If it was meant as a hole, read with `--nested-groups hole`.",
    ),
    "mask_bbox_mismatch": (
        "The corners of a mask call for another size than its PNG has; the PNG was used from the first corner on.",
        "Check where the mask lies.",
    ),
    "mask_ragged": (
        "The outlines of a mask have more than a million corners, as in noise; it is kept as a run-length mask, "
        "not as polygons. The pixels are the same.",
        "Nothing, or smooth the mask.",
    ),
    "not_utf8": (
        "The file is not UTF-8 and was read as GB18030.",
        "Save it as UTF-8.",
    ),
    "not_labelme": (
        "A JSON file in a Labelme folder is none of Labelme's and was skipped.",
        "Nothing, or move it elsewhere.",
    ),
    "not_via": (
        "A JSON file in a VIA folder is none of VIA's and was skipped.",
        "As for `not_labelme`.",
    ),
    "not_voc": (
        "An XML file is no VOC annotation and was skipped.",
        "As for `not_labelme`.",
    ),
    "label_whitespace": (
        "A label has blanks around it, which were removed.",
        "Correct the label.",
    ),
    "labels_differ_by_case": (
        "Two labels differ by upper and lower case alone and are two classes.",
        "Correct one, or join them in the project's classes.",
    ),
    "label_not_string": (
        "A label is a number and was read as text.",
        "Nothing, if the text is the class that was meant.",
    ),
    "group_id_not_int": (
        "A group number is no whole number; the message says what it was read as.",
        "Correct it.",
    ),
    "image_restored_from_imageData": (
        "The image is missing and was written out of the annotation file.",
        "Nothing, or bring the original image.",
    ),
    "ignored_label": (
        "`__ignore__`, `_background_` or a label that the project leaves out.",
        "Nothing.",
    ),
    "unlabeled_image": (
        "An image has no annotation and is left out, or is a negative where that was asked for.",
        "Annotate it, or save an empty annotation to make it a negative.",
    ),
    "no_spatial_extent": (
        "A VIA entry has a class but lies nowhere in the image.",
        "Nothing.",
    ),
}
"""Meaning and remedy by the code of a finding; a backquoted word is something to type."""
