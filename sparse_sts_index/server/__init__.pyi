from .client import ServedIndex as ServedIndex
