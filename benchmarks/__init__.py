"""Measurements of lbproxy: `load` (against other proxies) and `micro` (the hot pieces). See README.md."""
