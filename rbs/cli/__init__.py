"""Plain subcommands of `rbs`: a module each with HELP, add_arguments(parser) and run(args)."""
