// Requests of a local page to its own server; every failure becomes one sentence for the reader.

const LOST = "The server does not answer. Start the command again and open the address that it prints.";

/** The JSON that `path` answers; with `body` it is sent as POST. Throws an Error with one sentence. */
export async function ask(path, body) {
  const options = { credentials: "same-origin", cache: "no-store" };
  if (body !== undefined) {
    options.method = "POST";
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error(LOST);
  }
  const found = await answer.json().catch(() => ({}));
  if (answer.status === 401) throw new Error(LOST);
  if (!answer.ok) throw new Error(found.error ?? `The server answered ${answer.status}.`);
  return found;
}
