"""The published layouts: what each dataset is, where it comes from, and which files it must have.

Data only; `cmgl_cli.datasets.registry` gives them meaning. In ``expects``, ``a|b`` means either.
"""

from typing import Any

LAYOUTS: tuple[dict[str, Any], ...] = (
    {
        "name": "digits",
        "title": "1,797 handwritten digits with ink masks and class texts, bundled",
        "task": "classification",
        "loader": "digits:DigitsDataset",
    },
    {
        "name": "smoke",
        "title": "a few generated images of two classes, for smoke tests",
        "task": "classification",
        "loader": "smoke:SmokeDataset",
    },
    {
        "name": "folder",
        "title": "your own images: one folder a class, or images with masks",
        "task": "classification",
        "loader": "folder:FolderDataset",
        "layout": """\
ROOT/[train|val|test/]CLASS/*.jpg
or, with masks:
ROOT/images/[train|val|test/][CLASS/]*.jpg
ROOT/masks/[train|val|test/][CLASS/]*.png     same stem as the image
ROOT/classes.json                             {"classes": [...], "ignore_index": 255}""",
    },
    {
        "name": "images",
        "title": "your own images without labels, in any folders",
        "task": "classification",
        "loader": "folder:ImagesDataset",
        "layout": "ROOT/**/*.jpg",
    },
    {
        "name": "npz",
        "title": "your own arrays in one .npz file",
        "task": "classification",
        "loader": "npz:NpzDataset",
        "layout": """\
FILE.npz: images, labels[, split, classes, captions, masks, ids]
or one set a split: images_train, labels_train, ...""",
    },
    {
        "name": "cifar10",
        "title": "60,000 photographs of 32 x 32 pixels, 10 classes",
        "task": "classification",
        "loader": "cifar:Cifar10",
        "page": "https://www.cs.toronto.edu/~kriz/cifar.html",
        "published": "cifar-10-batches-py",
        "expects": (
            "batches.meta",
            "data_batch_1",
            "data_batch_2",
            "data_batch_3",
            "data_batch_4",
            "data_batch_5",
            "test_batch",
        ),
        "layout": """\
cifar-10-batches-py/
  batches.meta
  data_batch_1 ... data_batch_5
  test_batch""",
    },
    {
        "name": "cifar100",
        "title": "60,000 photographs of 32 x 32 pixels, 100 classes",
        "task": "classification",
        "loader": "cifar:Cifar100",
        "page": "https://www.cs.toronto.edu/~kriz/cifar.html",
        "published": "cifar-100-python",
        "expects": ("meta", "train", "test"),
        "layout": """\
cifar-100-python/
  meta
  train
  test""",
    },
    {
        "name": "cub200",
        "title": "Caltech-UCSD Birds-200-2011: 11,788 photographs of 200 species",
        "task": "classification",
        "loader": "cub:Cub200",
        "page": "https://www.vision.caltech.edu/datasets/cub_200_2011/",
        "published": "CUB_200_2011",
        "expects": ("images", "images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt"),
        "layout": """\
CUB_200_2011/
  images.txt  image_class_labels.txt  train_test_split.txt  classes.txt
  images/001.Black_footed_Albatross/*.jpg ...
segmentations/001.Black_footed_Albatross/*.png ...     optional, here or inside CUB_200_2011""",
    },
    {
        "name": "caltech256",
        "title": "Caltech-256: 30,607 photographs of 256 categories and clutter",
        "task": "classification",
        "loader": "caltech:Caltech256",
        "page": "https://data.caltech.edu/records/nyy15-4j048",
        "published": "256_ObjectCategories",
        "expects": ("[0-9][0-9][0-9].*",),
        "layout": """\
256_ObjectCategories/
  001.ak47/001_0001.jpg ...
  ...
  257.clutter/""",
    },
    {
        "name": "voc2012",
        "title": "PASCAL VOC 2012 segmentation: 20 classes and background",
        "task": "segmentation",
        "loader": "voc:Voc2012",
        "page": "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
        "published": "VOCdevkit/VOC2012",
        "expects": (
            "JPEGImages",
            "SegmentationClass",
            "ImageSets/Segmentation/train.txt",
            "ImageSets/Segmentation/val.txt",
        ),
        "layout": """\
VOCdevkit/VOC2012/
  JPEGImages/2007_000032.jpg ...
  SegmentationClass/2007_000032.png ...
  ImageSets/Segmentation/train.txt  val.txt
  Annotations/2007_000032.xml ...                        optional: image labels
  ImageSets/Segmentation/trainaug.txt  SegmentationClassAug/*.png    optional: SBD additions""",
    },
    {
        "name": "ade20k",
        "title": "ADE20K scene parsing: 22,210 scenes, 150 classes",
        "task": "segmentation",
        "loader": "ade20k:Ade20k",
        "page": "http://sceneparsing.csail.mit.edu/",
        "published": "ADEChallengeData2016",
        "expects": ("images", "annotations", "objectInfo150.txt"),
        "layout": """\
ADEChallengeData2016/
  images/training/ADE_train_00000001.jpg ...   images/validation/...
  annotations/training/ADE_train_00000001.png ...   annotations/validation/...
  objectInfo150.txt
  sceneCategories.txt                          optional: the scene becomes the caption""",
    },
    {
        "name": "coco2014",
        "title": "COCO 2014: 123,287 photographs, 80 classes, five captions each",
        "task": "segmentation",
        "loader": "coco:Coco2014",
        "page": "https://cocodataset.org/#download",
        "expects": (
            "annotations/instances_train2014.json|annotations/instances_val2014.json",
            "train2014|val2014",
        ),
        "layout": """\
coco2014/
  train2014/COCO_train2014_000000000009.jpg ...   val2014/...
  annotations/instances_train2014.json  instances_val2014.json
  annotations/captions_train2014.json  captions_val2014.json     optional""",
    },
    {
        "name": "kvasir",
        "title": "Kvasir-SEG: 1,000 colonoscopy images with polyp masks",
        "task": "segmentation",
        "loader": "kvasir:Kvasir",
        "page": "https://datasets.simula.no/kvasir-seg/",
        "published": "Kvasir-SEG",
        "expects": ("images", "masks"),
        "layout": """\
Kvasir-SEG/
  images/*.jpg
  masks/*.jpg
  kavsir_bboxes.json                           not read
  train.txt  val.txt                           optional: the authors' split""",
    },
)
