"""The ``sparse-sts`` command: a module for each subcommand or family of them, all of them thin."""
