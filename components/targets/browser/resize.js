// Bilinear, antialiased resizing with the sampling points and weights of tf.image.resize(antialias=True), which made
// the images that the model was trained and evaluated on. A canvas would choose its own filter.

/** For each output position along one axis: the first input that counts, and the weight of it and those after it. */
function spans(inputs, outputs) {
  const scale = inputs / outputs;
  const reach = Math.max(scale, 1);
  return Array.from({ length: outputs }, (_, position) => {
    const center = (position + 0.5) * scale;
    const first = Math.max(Math.ceil(center - reach - 0.5), 0);
    const last = Math.min(Math.floor(center + reach - 0.5), inputs - 1);
    const weights = [];
    for (let input = first; input <= last; input += 1) {
      weights.push(Math.max(1 - Math.abs((input + 0.5 - center) / reach), 0));
    }
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    return { first, weights: weights.map((weight) => weight / total) };
  });
}

/**
 * Resizes the pixels of a canvas and drops their alpha.
 *
 * @param {ImageData} image RGBA, 8 bits a channel.
 * @param {number} height Of the result.
 * @param {number} width Of the result.
 * @returns {Uint8Array} height * width * 3 values, RGB.
 */
export function resizeToRgb(image, height, width) {
  const columns = spans(image.width, width);
  const rows = spans(image.height, height);
  const narrow = new Float32Array(image.height * width * 3);
  for (let row = 0; row < image.height; row += 1) {
    for (let column = 0; column < width; column += 1) {
      const { first, weights } = columns[column];
      for (let channel = 0; channel < 3; channel += 1) {
        let sum = 0;
        for (let k = 0; k < weights.length; k += 1) {
          sum += weights[k] * image.data[(row * image.width + first + k) * 4 + channel];
        }
        narrow[(row * width + column) * 3 + channel] = sum;
      }
    }
  }
  const result = new Uint8Array(height * width * 3);
  const stride = width * 3;
  for (let row = 0; row < height; row += 1) {
    const { first, weights } = rows[row];
    for (let item = 0; item < stride; item += 1) {
      let sum = 0;
      for (let k = 0; k < weights.length; k += 1) {
        sum += weights[k] * narrow[(first + k) * stride + item];
      }
      result[row * stride + item] = Math.min(Math.max(Math.round(sum), 0), 255);
    }
  }
  return result;
}
