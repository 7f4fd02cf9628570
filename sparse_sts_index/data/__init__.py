"""The input of users: documents, fields, filters, pairs, the sample, and files as streams of rows."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
