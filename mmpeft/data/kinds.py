"""The kinds of things that the check of a data set finds, as they are shown."""

# Of annotation files.
UNREADABLE_ANNOTATION = 'annotations that cannot be read'
ENCODING = 'files that are not plain UTF-8, as which the loaders read them'
TEXT_NUMBER = 'numbers given as text or not finite'
NO_ANNOTATION = 'images without their annotation file'
NO_IMAGE = 'image files that are missing'
UNKNOWN_IMAGE = 'annotations of images that are not listed'
LISTED_TWICE = 'images listed twice'
SAME_FILE = 'image files under two ids: each entry is trained on with its own objects alone'
SAME_ID = 'annotations with the id of another'
SAME_CATEGORY = 'categories with the id or the name of another'
LACKING_KEY = 'annotations without a key that training or the metric reads'
CROWD_VALUE = 'annotations whose iscrowd is neither 0 nor 1'
NO_AREA = 'boxes without an area, or less than 1 px wide or high, which mmdet leaves out'
EMPTY_BOX = 'objects without an area, on which losses become inf or nan'
AREA_ZERO = 'objects whose area is given as 0, which mmdet leaves out'
NO_MASK = 'objects without a mask, on a config that trains or scores masks (with_mask=True)'
BOXES_ALONE = 'objects without a mask: good for boxes alone, a config with with_mask=False and no mask head'
LABEL_RANGE = 'label maps with values above the number of classes'
WIDE_LABELS = 'label maps with values that do not fit into the 8 bits that mmseg keeps'
OTHER_SIZE = 'images of another size than their annotations tell'
HEADER = 'label files with lines such as gsd:0.2: split reads over them, the loader of mmrotate does not'
# Of images and counts.
UNREADABLE_IMAGE = 'image files that cannot be read'
OUTSIDE = 'objects wholly outside their image'
OVER_EDGE = 'objects that reach over the edge of their image by more than 1 px'
EMPTY = 'nothing in it'
NOTHING_SEEN = 'no object in any image'
NOTHING_LEFT = 'no object that is left to train on'
COUNT = 'another number of images than published'
NO_OBJECTS = 'images without objects'
TURNED = 'images that EXIF turns: objects must be drawn on the turned ones, as mmcv reads them'
DEEP = 'images of more than 8 bits a channel, of which mmcv keeps the upper 8'
# Of class names and labels.
UNKNOWN_CLASS = 'class names that differ from those of the data set'
NOT_CHOSEN = 'objects of classes that are not trained on'
UNSEEN_CLASS = 'classes without an object'
NO_MATCH = 'no class name that matches'
LACKING_CLASS = 'class names that the json does not list, so that the labels behind them get other names'
ORDER = 'class names in another order than the json, by which mmdet numbers them'
OTHER_TRUTH = 'metrics whose json has other images or categories than the data set'
OTHER_PART = 'parts whose json lists other class names, or in another order, than that of the first'
ALONE = 'label maps drawn as masks: 255 is ignored, so that nothing but one label is left'
LOOKS = 'labels that look like those of another reduce_zero_label'

# What the published data sets hold themselves, and what training copes with.
NOTES = {
    BOXES_ALONE,
    DEEP,
    HEADER,
    LOOKS,
    NOT_CHOSEN,
    NO_AREA,
    NO_OBJECTS,
    OVER_EDGE,
    SAME_FILE,
    TURNED,
    UNSEEN_CLASS,
}
