"""The demo in the browser: pictures, webcam and video, learning on the spot. Started by `python app/demo.py` or `spyolo demo`."""
