"""One module a pass: a pure step from one ONNX file to another."""
