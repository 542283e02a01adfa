"""lbproxy and HAProxy between clients and servers of HTTP/2: CPU per request, and who gets how many."""
