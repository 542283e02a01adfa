"""Memory and locks that several processes of lbproxy share."""
