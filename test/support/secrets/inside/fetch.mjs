// fetch.mjs URL [INIT]: prints status, version-independent headers and the body, in JSON, with the time of each piece of the body.
const [url, init = "{}"] = process.argv.slice(2);
const begin = performance.now();
try {
  const response = await fetch(url, JSON.parse(init));
  const pieces = [];
  const decoder = new TextDecoder();
  for await (const piece of response.body ?? [])
    pieces.push({ text: decoder.decode(piece, { stream: true }), ms: Math.round(performance.now() - begin) });
  const headers = Object.fromEntries(response.headers);
  console.log(
    JSON.stringify({ status: response.status, headers, text: pieces.map(({ text }) => text).join(""), pieces }),
  );
} catch (error) {
  console.log(JSON.stringify({ status: 0, headers: {}, text: "", pieces: [], error: String(error.cause ?? error) }));
}
