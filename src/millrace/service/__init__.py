"""The HTTP service and its page: what the other faces do, over HTTP. See `app` for the routes and `house` for the parts."""
