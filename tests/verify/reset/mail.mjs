// Reads the mail files of a server: RFC 5322 and MIME, as far as our own mails go.
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";

const patience = 10_000;

// The headers, their lines joined, and the body, of a mail or a part of one.
const parse = (raw) => {
  const [head, ...rest] = raw.split(/\r?\n\r?\n/);
  const lines = head.replace(/\r?\n[ \t]+/g, " ").split(/\r?\n/);
  const headers = new Map(lines.map((line) => [line.split(":")[0].toLowerCase(), line.replace(/^[^:]*:\s*/, "")]));
  return { headers, body: rest.join("\r\n\r\n") };
};

const decoded = (text, encoding) => {
  if (encoding === "base64") return Buffer.from(text, "base64").toString("utf8");
  if (encoding !== "quoted-printable") return Buffer.from(text, "latin1").toString("utf8");
  const bytes = text
    .replace(/=[ \t]*\r?\n/g, "")
    .replace(/=([0-9A-F]{2})/gi, (_, hex) => String.fromCharCode(parseInt(hex, 16)));
  return Buffer.from(bytes, "latin1").toString("utf8");
};

// The text of every part that is plain text.
const plain = ({ headers, body }) => {
  const type = headers.get("content-type") ?? "text/plain";
  const boundary = /^multipart\/.*boundary="?([^";]+)"?/i.exec(type)?.[1];
  if (boundary) {
    const parts = `\r\n${body}`.split(`\n--${boundary}`).slice(1, -1);
    return parts.map((part) => plain(parse(part.replace(/^\s*\n/, "")))).join("\n");
  }
  return /^text\/plain/i.test(type) ? decoded(body, headers.get("content-transfer-encoding")?.toLowerCase()) : "";
};

// What `find` makes of the first mail to this address of which it makes anything, within ten seconds.
export const mailTo = async (address, directory, find) => {
  for (const end = Date.now() + patience; Date.now() < end; await new Promise((done) => setTimeout(done, 100))) {
    const names = await readdir(directory).catch(() => []); // the first mail makes it
    for (const name of names.filter((name) => name.endsWith(".eml"))) {
      const mail = parse(await readFile(join(directory, name), "latin1"));
      const found = mail.headers.get("to")?.includes(address) && find(plain(mail));
      if (found) return found;
    }
  }
  throw new Error(`no such mail to ${address} within ${patience / 1000} s`);
};
