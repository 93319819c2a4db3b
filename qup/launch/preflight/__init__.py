"""What is looked for before anything is spent: credentials, downloads, the limits of partitions."""
