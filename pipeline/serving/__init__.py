"""The embedded model server: TensorFlow Serving's REST API and the Open Inference Protocol over one model."""
