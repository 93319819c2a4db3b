"""What the console command does to a study after its launch, a module a subcommand."""
