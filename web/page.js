// Decodes recordings in the browser: the model by onnxruntime-web, then the images with the largest cosines.

import * as ort from "./onnxruntime.js";

ort.env.wasm.numThreads = 1; // more of them need headers that few static servers send
ort.env.wasm.wasmPaths = { wasm: new URL("./onnxruntime.wasm", import.meta.url).href };

const SHOWN = 5;
const LARGEST_FILE = 10e6; // bytes; a recording has some hundred thousand
const at = (id) => document.getElementById(id);

/** The bytes of a file beside this page. */
async function fetched(name) {
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`The file '${name}' of this page cannot be had: ${answer.status}.`);
  return answer.arrayBuffer();
}

/** Rows of `width` numbers. */
const rowsOf = (numbers, width) =>
  Array.from({ length: numbers.length / width }, (_, row) => numbers.subarray(row * width, (row + 1) * width));

/** Model, recordings and images of a modality, read once. */
const opened = new Map();
function open(set) {
  if (!opened.has(set.modality)) opened.set(set.modality, read(set));
  return opened.get(set.modality);
}

async function read(set) {
  const files = [set.model, set.recordings_file, set.vectors_file].map(fetched);
  const [model, recordings, vectors] = await Promise.all(files);
  const size = set.shape.reduce((product, length) => product * length, 1);
  return {
    session: await ort.InferenceSession.create(model, { executionProviders: ["wasm"] }),
    recordings: rowsOf(new Float32Array(recordings), size),
    images: rowsOf(new Float32Array(vectors), set.width).map(unit),
  };
}

/** A vector at length 1, in the 64 bits of JavaScript's numbers. */
function unit(vector) {
  const length = Math.sqrt(vector.reduce((sum, number) => sum + number * number, 0));
  return Float64Array.from(vector, (number) => number / length);
}

/** Images by cosine, the largest first; ties in the order of the gallery. */
async function decode(set, values) {
  const { session, images } = await open(set);
  const input = new ort.Tensor("float32", values, [1, ...set.shape]);
  const output = await session.run({ [session.inputNames[0]]: input });
  const query = unit(output[session.outputNames[0]].data);
  const scores = images.map((image) => image.reduce((sum, number, place) => sum + number * query[place], 0));
  return scores.map((score, row) => ({ score, row })).sort((a, b) => b.score - a.score || a.row - b.row);
}

/** The numbers of a `.npy` file that holds one recording of this shape. */
async function uploaded(file, shape) {
  const allowed = `Allowed is a .npy file of float32 with shape (${shape.join(", ")})`;
  const refuse = (found) => new Error(`'${file.name}' cannot be decoded. ${allowed}, but ${found}.`);
  if (file.size > LARGEST_FILE) throw refuse(`it has ${file.size.toLocaleString("en")} bytes`);
  const bytes = await file.arrayBuffer();
  const head = new Uint8Array(bytes, 0, Math.min(10, bytes.byteLength));
  if (head.length < 10 || String.fromCharCode(...head.subarray(1, 6)) !== "NUMPY") throw refuse("it is no .npy file");
  const long = head[6] > 1; // version 2 has a longer header
  const start = long ? 12 : 10;
  const length = long ? new DataView(bytes).getUint32(8, true) : new DataView(bytes).getUint16(8, true);
  const header = new TextDecoder("latin1").decode(new Uint8Array(bytes).subarray(start, start + length));
  const kind = /'descr': '([^']*)'/.exec(header)?.[1];
  const found = /'shape': \(([^)]*)\)/.exec(header)?.[1].split(",").map((text) => text.trim()).filter(Boolean).map(Number);
  if (kind !== "<f4" || header.includes("'fortran_order': True")) throw refuse(`it holds '${kind}', or is in Fortran order`);
  const own = found?.length === shape.length + 1 && found[0] === 1 ? found.slice(1) : found;
  if (String(own) !== String(shape)) throw refuse(`it has shape (${found?.join(", ")})`);
  const size = shape.reduce((product, axis) => product * axis, 1);
  if (bytes.byteLength !== start + length + 4 * size) throw refuse("it is not as long as its header says");
  const values = new Float32Array(bytes.slice(start + length));
  if (!values.every(Number.isFinite)) throw refuse("some of its values are not finite");
  return values;
}

/** A picture with its caption. */
function figure(image, alt, caption) {
  const [box, picture, text] = ["figure", "img", "figcaption"].map((name) => document.createElement(name));
  Object.assign(picture, { src: image.picture, alt });
  text.textContent = caption;
  box.append(picture, text);
  return box;
}

/** Show the answer; `seen` is the row of the image that was shown, where it is known. */
function show(set, asked, ranked, seen) {
  at("asked").textContent = asked;
  at("seen").replaceChildren();
  if (seen !== undefined) {
    const image = set.images[seen];
    at("seen").append(figure(image, `the image that was seen: ${image.name}`, `SIMULATED · seen: ${image.name}`));
  }
  const n = set.images.length;
  at("chance").textContent =
    `SIMULATED · ${n} images were searched; by chance, any of them comes first in 1 of ${n} (${(100 / n).toFixed(1)}%).`;
  const items = ranked.slice(0, SHOWN).map(({ score, row }, place) => {
    const item = document.createElement("li");
    const image = set.images[row];
    const right = row === seen ? " (the image that was seen)" : "";
    const caption = `SIMULATED · ${place + 1}. cosine ${score.toFixed(3)}: ${image.name}${right}`;
    Object.assign(item.dataset, { imageId: image.image_id, score });
    item.classList.toggle("right", row === seen);
    item.append(figure(image, `number ${place + 1}: ${image.name}`, caption));
    return item;
  });
  at("hits").replaceChildren(...items);
}

let asked = 0; // questions so far: only the last one is answered on the page

/** Answer what is chosen: a file where there is one, or else a recording of the sample. */
async function answer(sets) {
  const question = (asked += 1);
  const set = sets.find((one) => one.modality === at("modality").value);
  const number = Number(at("recording").value);
  const file = at("file").files[0];
  at("status").textContent = "Computing …";
  let refusal = "";
  try {
    const values = file ? await uploaded(file, set.shape) : (await open(set)).recordings[number];
    const ranked = await decode(set, values);
    if (question !== asked) return;
    const title = file ? `SIMULATED model · ${set.title} of '${file.name}'` : set.recordings[number].title;
    show(set, title, ranked, file ? undefined : set.recordings[number].seen);
  } catch (error) {
    if (question !== asked) return;
    refusal = error.message;
  }
  at("status").textContent = "";
  at("refusal").textContent = refusal;
  at("refusal").hidden = !refusal;
  at("answer").hidden = Boolean(refusal);
}

/** Offer the recordings of the modality that is chosen. */
function offer(sets) {
  const set = sets.find((one) => one.modality === at("modality").value);
  at("shape").textContent = `shape (${set.shape.join(", ")})`;
  at("recording").replaceChildren(...set.recordings.map((one, row) => new Option(`${row + 1}: ${one.name}`, row)));
  at("file").value = "";
}

try {
  const sets = JSON.parse(new TextDecoder().decode(await fetched("page.json")));
  at("modality").replaceChildren(...sets.map((set) => new Option(set.title, set.modality)));
  at("modality").addEventListener("change", () => (offer(sets), answer(sets)));
  at("recording").addEventListener("change", () => ((at("file").value = ""), answer(sets)));
  at("file").addEventListener("change", () => answer(sets));
  at("question").addEventListener("submit", (event) => event.preventDefault());
  offer(sets);
  await answer(sets);
} catch (error) {
  at("status").textContent = "";
  at("refusal").textContent = error.message;
  at("refusal").hidden = false;
}
