"""Makes the documentation site: the pages in ``docs``, and those that are generated from the code.

``python -m tools.docs_site`` writes the Markdown of all pages to ``build/docs`` and the site to ``build/site``. Nothing
of it is kept in git, see ``docs/decisions/033-documentation-site.md``.
"""
