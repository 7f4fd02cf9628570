"""Semantic-similarity search over sentences: a SPLADE sparse encoder in a Lucene impact index.

``__init__.pyi`` lists the public names. Each is loaded when it is first used, since some need torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
