// Axes that are linear near 0 and logarithmic beyond, for columns in which few values squeeze all others.

const SQUEEZED = 12; // the end of the values over what nine in ten are within

function within(values, share) {
  const size = Array.from(values, Math.abs).filter(Number.isFinite).sort((a, b) => a - b);
  return size.length ? size[Math.floor(share * (size.length - 1))] : 0;
}

function isSqueezed(values) {
  const most = within(values, 0.9);
  return most > 0 && within(values, 1) > SQUEEZED * most;
}

// Where an axis stops to be linear: the typical size of the values.
function scaleOf(values) {
  return within(values, 0.75) || within(values, 1) || 1;
}

function stretched(value, scale) {
  return Math.asinh(value / scale);
}

function unstretched(at, scale) {
  return scale * Math.sinh(at);
}

// 0 and 1, 2, 5 times powers of ten on either side, none too close to another.
function ticksOf(scale, [low, high]) {
  const found = [], apart = 0.1 * (high - low);
  const far = Math.max(Math.abs(unstretched(low, scale)), Math.abs(unstretched(high, scale)));
  const sizes = [0];
  for (let decade = Math.floor(Math.log10(scale)); 10 ** decade <= far; decade++) {
    for (const factor of [1, 2, 5]) sizes.push(factor * 10 ** decade);
  }
  const round = (size) => (size === 0 ? 0 : /^1/.test(String(size / 10 ** Math.floor(Math.log10(size) + 1e-9))) ? 1 : 2);
  sizes.sort((a, b) => round(a) - round(b));
  for (const size of sizes) {
    for (const value of size ? [-size, size] : [0]) {
      const at = stretched(value, scale);
      if (at >= low && at <= high && found.every((other) => Math.abs(stretched(other, scale) - at) >= apart)) found.push(value);
    }
  }
  return found.sort((a, b) => a - b);
}
