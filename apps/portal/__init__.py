"""The portal context: HTML pages and WebSockets."""
