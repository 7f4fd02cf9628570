"""The ``sparse-sts`` command: one module a subcommand, all of them thin."""
