"""The only code that changes a user's file, and what it needs to know of files and devices for it."""
