"""The engine for learning by trial: a method is a generator of requests, and one small engine performs them."""
