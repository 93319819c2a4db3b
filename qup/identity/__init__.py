"""Identity at planning: files, folders and hub names become contents."""
