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
)
