"""The words that models read and write: prompts, chat templates, cleaning, edits."""
