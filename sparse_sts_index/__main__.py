"""``python -m sparse_sts_index``, which is ``sparse-sts``."""

import importlib

importlib.import_module("sparse_sts_index.cli.entry").run()  # by name: the library does not know the commands
