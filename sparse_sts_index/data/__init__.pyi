from .filters import (
    And as And,
    Compare as Compare,
    Exists as Exists,
    Filter as Filter,
    In as In,
    Not as Not,
    Or as Or,
    parse_filter as parse_filter,
)
