"""cmgl: learn the sparse dependency graph of multimodal data, and use it.

Importing this package imports neither torch nor transformers; each room is imported when it is needed.
"""

__version__ = "0.1.0"
