"""Answers to questions, the same for the API, the page and the command line."""
