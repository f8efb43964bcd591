"""The demo in the browser: pictures, webcam and video, learning on the spot. Started by `python app/demo.py` or `spyolo demo`."""

import os

# Read when Gradio is first imported: no reports home, nothing asked of other computers, no history of runs.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_RUN_HISTORY"] = "False"
os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = "1000000"  # a table of all requests after each one would cost more than most of them
os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "100"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
