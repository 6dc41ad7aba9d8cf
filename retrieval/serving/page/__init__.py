"""The page: templates that work without JavaScript, one style sheet, and modules that make the page quicker to use."""
