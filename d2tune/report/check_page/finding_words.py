"""What every finding means and what to do about it, in the words of ``docs/findings.md``."""

WORDS = {
    "bad_json": (
        "The file is not valid JSON: cut off, empty, or with a mistake at the line and column given; or it cannot be "
        "read, is larger than 2 GB, or is nested more than 100 levels deep.",
        "Restore it from a backup, or delete it and annotate the image again.",
    ),
    "bad_xml": (
        "The file is not valid XML, is not text in the encoding that it declares, or uses an entity of a document "
        "type, which is never expanded.",
        "Correct the line named, or save the file again as UTF-8.",
    ),
    "bad_csv": (
        "A CSV of VIA cannot be read, or the attributes of a region are not a JSON object.",
        "Export it again.",
    ),
    "bad_label_file": (
        "A label file of YOLO cannot be read.",
        "Export it again.",
    ),
    "several_frames": (
        "The file has tracks of a video, or an item of several images (slots), which are not read.",
        "Export the shapes of each image: CVAT for images 1.1, COCO 1.0.",
    ),
    "bad_shape": (
        "A shape, annotation or category is not a JSON object, has no label, or has no valid id; or an object of a"
        " VOC file has neither a polygon nor a box.",
        "Correct or delete the entry named.",
    ),
    "bad_point": (
        "Points are not pairs of numbers, or lie farther outside than any image reaches.",
        "Draw the shape again.",
    ),
    "non_finite_coordinate": (
        "A coordinate is NaN or infinite.",
        "Draw the shape again.",
    ),
    "outline_too_complex": (
        "An outline is longer than four million pixels on the image, crosses one of its borders more than 10,000 "
        "times, or has too many edges near one another to be checked (20 million pairs, as in a spiral of a million "
        "points).",
        "Draw the shape again, or simplify it.",
    ),
    "group_too_large": (
        "Thousands of parts of a group overlap: the boxes of more than 100,000 pairs lie inside one another, too many "
        "to compute which part lies inside which.",
        "Give each object its own group number.",
    ),
    "wrong_point_count": (
        "The number of points is invalid: a rectangle has 2 or 4 corners, a circle or a mask 2 points, an oriented"
        " rectangle 4.",
        "Draw the shape again, or give it the type that its points have.",
    ),
    "mask_missing": (
        "A mask shape has no mask, or the mask file named does not exist.",
        "Draw the mask again, or restore the file.",
    ),
    "mask_undecodable": (
        "A mask is not a PNG, cannot be decoded, has more than 89 million pixels (in color: 134 million values), "
        "is a JPEG, whose compression changes the values, or has colors without a class.",
        "Save it again as a palette or gray PNG, or give the colors classes in a color map (`labelmap.txt`, "
        "`--color-map`).",
    ),
    "bad_rle": (
        "The run-length text is invalid: an odd number of values, a zero, a run beyond the image, two runs that "
        "overlap, or columns that are not those of the dialect.",
        "Correct the line named, or choose another `--preset`.",
    ),
    "image_missing": (
        "The image is not at the path named nor anywhere else below the data root, or lies outside it, and "
        "`imageData` is empty.",
        "Correct the path, name the folder of the images with `--image-root` or `data.images`, or allow other "
        "folders with `--allow-outside` or `--follow-links`.",
    ),
    "image_ambiguous": (
        "The image is not at the path named, and several images have its name, or its stem.",
        "Correct the path in the annotation file, or keep one of the images.",
    ),
    "image_found_elsewhere": (
        "The image is not at the path named; another image is used, which has the end of that path, its base name,"
        " its stem, the name of the annotation file, or the same name in another case or Unicode form.",
        "Check that it is the image that was annotated, and correct the path in the annotation file.",
    ),
    "link_not_followed": (
        "A folder is a link that leads out of the data root, and was skipped.",
        "Follow such links with `--follow-links` or `data.follow_links: true`, or name the folder itself.",
    ),
    "image_unreadable": (
        "The image is empty, cut off, damaged, not an image, or of a format that is not read (HEIC, camera raw, "
        "Photoshop, SVG), or claims an invalid size.",
        "Replace the image, or convert it to JPEG.",
    ),
    "image_out_of_range": (
        "The image stores floats outside 0 to 1, or whole numbers outside 0 to 65535, so that nothing says which "
        "value is white; the message gives its range.",
        "Save it as 8 or 16 bits by the range of the whole data set, or use label images (`data.format: "
        "label_images`).",
    ),
    "image_too_large": (
        "The image has more than 400 megapixels, the limit of images that are decoded whole; a warning where no "
        "project is read.",
        "Divide it and its annotations into tiles, or use label images (`data.format: label_images`), which are "
        "read by windows.",
    ),
    "size_mismatch": (
        "The annotation file states a size that differs from the image's, so it was made for another image or another "
        "copy.",
        "Find the image that was annotated.",
    ),
    "size_swapped_exif": (
        "The stated size is that of the image before its EXIF orientation is applied; the shapes would lie beside "
        "their objects.",
        "Annotate the image in its displayed orientation.",
    ),
    "image_rotated": (
        "The image was rotated in Label Studio, so that the coordinates are not those of its file.",
        "Rotate the file and annotate it again.",
    ),
    "duplicate_image": (
        "Two annotation files, or two entries, belong to the same image.",
        "Keep one of them.",
    ),
    "shared_image": (
        "An image of one split is in an earlier split too, as the same file or as a file with the same content. Scores "
        "on it say nothing about new images.",
        "Remove it from one of the splits, or set `data.val` to a fraction of one folder.",
    ),
    "not_divisible": (
        "`data.val` is a fraction, and there is one image, or all images are near-duplicates, so that none can be set "
        "aside.",
        "Add other images, name those to validate on in `data.val`, or divide by `d2tune split --no-duplicates`.",
    ),
    "near_duplicate": (
        "An image of one split is nearly the same as an image of an earlier split, which raises the scores.",
        "Keep such images in one split: `d2tune split` keeps near-duplicates together.",
    ),
    "unknown_label": (
        "The label is not in the list of classes; the hint names the most similar class.",
        "Correct the label, rename it with `data.rename` or `--rename`, or add it to the classes.",
    ),
    "no_class": (
        "A region or mask has no class.",
        "Give the class with `--class-name`, or the attribute that holds it with `--class-attribute`.",
    ),
    "label_missing": (
        "An image has no label image of its name.",
        "Label it, remove it, or use it as a negative with `--include-unlabeled`.",
    ),
    "unknown_label_value": (
        "A label image has values that belong to no class; the message lists them with their numbers of pixels.",
        "Add them to the classes, or ignore them with `null` in `data.label_images.values`.",
    ),
    "channels_differ": (
        "The number of channels of an image differs from that of the other images of its split.",
        "Add the missing channels, or name those to use in `data.label_images.channels`.",
    ),
    "all_left_out": (
        "A label image has no labeled pixels.",
        "Label it, remove it, or exclude it with `data.skip_bad`.",
    ),
    "nothing_labeled": (
        "No label image has labeled pixels, so training is not possible.",
        "Check `data.label_images.values`, or label some images.",
    ),
    "clipped": (
        "A shape extends beyond the image and was cut at its border.",
        "Nothing, if the object continues beyond the image.",
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
        "A shape encloses no area and was dropped: its points lie on one line or at one place.",
        "Delete it or draw it again.",
    ),
    "rasterizes_empty": (
        "A shape covers no pixel, or the holes of its group remove all of its pixels, and was dropped.",
        "Delete it, or use images of a higher resolution.",
    ),
    "self_intersection": (
        "An outline crosses itself; areas that it encloses an even number of times are not part of the object.",
        "Draw it again if these areas belong to the object.",
    ),
    "unsupported_shape_type": (
        "A line or a point has no area, or a shape of an unknown type has fewer than three points; it was skipped.",
        "Nothing, or draw the area.",
    ),
    "unknown_shape_type": (
        "A shape with three points or more has a type that d2tune does not know. It was skipped, or read as a "
        "polygon with `--unknown-shapes polygon`.",
        "Read such shapes as polygons with `--unknown-shapes polygon`, in a project `data.unknown_shapes: "
        "polygon`, or draw them again.",
    ),
    "group_part_nested": (
        "A part of a group lies inside another part and was united with it.",
        "If it is a hole, use `--nested-groups hole`.",
    ),
    "box_of_shape": (
        "A box is the box around another object of the same class; both are kept.",
        "If both are the same object, remove the box.",
    ),
    "duplicate_shape": (
        "Two objects of an image have the same class and the same pixels; one of them was dropped.",
        "Remove one of them.",
    ),
    "mask_bbox_mismatch": (
        "The size given by the corners of a mask differs from that of its PNG; the PNG was placed at the first corner.",
        "Check the position of the mask.",
    ),
    "mask_ragged": (
        "The outlines of a mask have more than a million corners, as in noise; it is kept as a run-length mask, not "
        "as polygons. The pixels are the same.",
        "Nothing, or smooth the mask.",
    ),
    "mask_not_binary": (
        "A binary mask has values between 0 and its maximum, as resizing leaves them at edges, or pixels that are "
        "partly transparent. It was cut at half.",
        "Nothing, or resize masks without interpolation (nearest neighbor).",
    ),
    "not_utf8": (
        "The file is not UTF-8 and was read as GB18030.",
        "Save it as UTF-8.",
    ),
    "not_labelme": (
        "A JSON file in a Labelme folder is not a Labelme file and was skipped.",
        "Nothing, or move it elsewhere.",
    ),
    "not_via": (
        "A JSON file in a VIA folder is not a VIA file and was skipped.",
        "See `not_labelme`.",
    ),
    "not_voc": (
        "An XML file is not a VOC annotation and was skipped.",
        "See `not_labelme`.",
    ),
    "not_this_format": (
        "A file in a folder of another annotation format is not of that format and was skipped.",
        "See `not_labelme`.",
    ),
    "other_format": (
        "The folder has annotations of two formats; one of them is read.",
        "Name the one to read with `--format` or `data.format`, or move the others away.",
    ),
    "several_annotations": (
        "A task of Label Studio has several annotations; the latest is read, a ground truth before others.",
        "Mark one as ground truth, or remove the others.",
    ),
    "several_classes": (
        "A region of Label Studio has several classes; the first is read.",
        "Give each region one class.",
    ),
    "label_whitespace": (
        "A label has leading or trailing blanks, which were removed.",
        "Correct the label.",
    ),
    "similar_labels": (
        "Two labels differ by a letter, by their plural, by accents or by separators (`baloon` beside `balloon`); an "
        "info where a letter differs and both are frequent. Shown by `d2tune check`.",
        "If they are one class, merge them with `data.rename` or `--rename`.",
    ),
    "labels_differ_by_case": (
        "Two labels differ only in upper and lower case and are two classes.",
        "Correct one of them, or map both to one class in the project.",
    ),
    "label_not_string": (
        "A label is a number and was read as text.",
        "Nothing, if the text is the name of the class.",
    ),
    "only_crowds": (
        "All annotations of a split are marked as crowds (`iscrowd`), which training excludes: nothing is left to "
        "train on or to evaluate.",
        "If they are single objects, read them as objects: `data.crowds: objects` in a project, or `--crowds objects`.",
    ),
    "crowds": (
        "Some annotations are marked as crowds (`iscrowd`), which training excludes and evaluation ignores.",
        "See `only_crowds`.",
    ),
    "normalized_coordinates": (
        "All coordinates of a file are between 0 and 1 and are read as shares of the width and height of the image.",
        "Nothing, or write coordinates in pixels.",
    ),
    "loose_type": (
        "A COCO file has values of other types than the format: ids or boxes as text, a flat polygon or one of "
        "pairs, `\"b'...'\"` or floats as counts. The message says what was read.",
        "Nothing, or write the file as COCO has it.",
    ),
    "label_not_printable": (
        "A label has line ends, control characters (such as escape sequences of a terminal) or characters that are"
        " not valid Unicode.",
        "Correct the label, or give the class another name with `--rename` or `data.rename`.",
    ),
    "group_id_not_int": (
        "A group number is not an integer; the message gives the value that was used.",
        "Correct it.",
    ),
    "image_restored_from_imageData": (
        "The image is missing and was restored from the annotation file.",
        "Nothing, or restore the original image.",
    ),
    "image_range_differs": (
        "Files of 16-bit images state different ranges, or have values beyond the range that they state; all of "
        "them are divided by the same value, which the message gives.",
        "Nothing, or save all of them with the same range.",
    ),
    "ignored_label": (
        "The label is `__ignore__`, `_background_`, or one that the project ignores.",
        "Nothing.",
    ),
    "unlabeled_image": (
        "An image has no annotation and is not used, or is a negative with `--include-unlabeled`.",
        "Annotate it, or save an empty annotation to use it as a negative.",
    ),
    "option_unused": (
        "An option or a key of the project has no effect: the format that is read does not use it, or the rows of "
        "a run-length CSV have classes of their own.",
        "Nothing, or leave the option out.",
    ),
    "no_spatial_extent": (
        "An entry has a class but no position in the image: one of VIA, or a tag of the image.",
        "Nothing.",
    ),
    "root_category": (
        "A category of a COCO file is only the supercategory of others and has no object; it is not a class.",
        "Nothing; name it among the classes to keep it.",
    ),
    "box_as_mask": (
        "Objects are given as boxes, without outlines; their masks are the whole rectangles. Metrics of masks "
        "then measure boxes.",
        "Draw outlines, if the masks are to follow the objects.",
    ),
    "same_place": (
        "Two objects of different classes have the same pixels; both are kept.",
        "Remove one of them, if the object has one class.",
    ),
    "image_scaled": (
        "Images have more than 8 bits a value; the message gives the value by which all of them are divided in "
        "training, evaluation and prediction.",
        "Nothing.",
    ),
    "image_converted": (
        "Images have a color model such as CMYK or LAB and are converted to RGB.",
        "Nothing.",
    ),
    "image_has_frames": (
        "A file has several frames or pages; the first is used.",
        "Nothing, or save the others as images of their own.",
    ),
}
"""Meaning and remedy by the code of a finding; a backquoted word is something to type."""
