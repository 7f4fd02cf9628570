"""One index on disk: manifest, vector files, Lucene files, snapshots and transactions."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
