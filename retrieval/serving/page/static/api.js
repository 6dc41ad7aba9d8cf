// Calls of the API under /v1. An answer that is an error becomes an Error with the server's sentence.

async function answer(response) {
  if (response.ok) return response.json();
  if (response.status === 401) {
    location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
  }
  let sentence = `the server answered with status ${response.status}`;
  try {
    sentence = (await response.json()).error ?? sentence;
  } catch {
    // not JSON: the status says enough
  }
  throw new Error(sentence);
}

async function call(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the server can't be reached");
  }
  return answer(response);
}

const post = (path, body, signal) =>
  call(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal });

const indexPath = (index) => `/v1/indexes/${encodeURIComponent(index)}`;

export const search = (body, signal) => post("/v1/search", body, signal);
export const explain = (body, signal) => post("/v1/explain", body, signal);
export const items = (index, first, count) => call(`${indexPath(index)}/items?first=${first}&count=${count}`);
export const itemsOf = (index, ids) => call(`${indexPath(index)}/items?ids=${ids.join(",")}`);
export const find = (index, text) => call(`${indexPath(index)}/find?text=${encodeURIComponent(text)}`);
export const places = (index, mode) => call(`${indexPath(index)}/map?mode=${encodeURIComponent(mode)}`);

export const progress = (address) => call(address);

export function upload(file) {
  const form = new FormData();
  form.append("image", file, "image");
  return call("/v1/uploads", { method: "POST", body: form });
}

export const thumbnail = (index, id, key = "", side = 256) =>
  `${indexPath(index)}/items/${id}/thumbnail?side=${side}${key ? `&v=${key}` : ""}`;
export const original = (index, id) => `${indexPath(index)}/items/${id}/original`;
export const uploaded = (key) => `/v1/uploads/${key}/thumbnail?side=512`;
export const shortName = (path) => path.split("/").slice(-2).join("/");

export const asCard = (item) => ({
  id: item.id, path: item.path, name: shortName(item.path), key: item.sha256.slice(0, 12),
  score: item.score ?? item.coarse_score ?? null, box: item.found_box ?? null, percentile: item.percentile ?? null,
});
