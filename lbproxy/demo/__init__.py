"""`lbproxy demo`: a small predict server (Flask, an iris classifier) and the runner that starts three of it."""
