// The comparison in Markdown, for a forum or an issue: one sentence, one table, the link. A value may bring its own words as
// {sentence, columns: [name], rows: {key: [cell]}, link}: the page does; without them the labels have to do.
const escaped = (text) => String(text).replace(/[\\`*_[\]<>|#~]/g, "\\$&").replace(/\s+/g, " ").trim();

function linkNow() {
  const given = props.value?.quote?.link;
  if (!given && !location.protocol.startsWith("http")) return ""; // a file on somebody's disk
  const url = new URL(given ?? location.href, location.href);
  if (given) url.searchParams.set("view", element.dataset.view ?? "");
  return url.href;
}

function markdown() {
  const { sentence = "", columns = ["Details"], rows: known = {} } = props.value?.quote ?? {}, there = entries.filter(loaded);
  const crop = view.measure && numbers.size && there.some((entry) => numbers.get(entry.key)?.psnr !== undefined);
  const cells = (entry) => [
    entry.label,
    ...(known[entry.key] ?? [entry.detail, ...columns.slice(1).map(() => "")]),
    ...(crop ? METRICS.map(([name, , digits]) => figure(numbers.get(entry.key)?.[name], digits)) : []),
  ];
  const head = ["Method", ...columns, ...(crop ? METRICS.map(([, name]) => `${name}, crop`) : [])];
  const line = (texts) => `| ${texts.map(escaped).join(" | ")} |`;
  const where = crop ? ` Crop: ${ref("crop").textContent.replace("Visible crop: ", "")}, against ${escaped(referenceEntry().label)}.` : "";
  const link = linkNow();
  return [
    `${escaped(sentence) || `${there.length} pictures of one subject.`}${where}${link ? ` <${link}>` : ""}`, "",
    line(head), `|${head.map(() => " --- |").join("")}`, ...there.map((entry) => line(cells(entry))), "",
  ].join("\n");
}

async function copyMarkdown() {
  const text = markdown();
  let done = true;
  try {
    await navigator.clipboard.writeText(text); // not there on plain http and in a file
  } catch {
    const area = Object.assign(make("textarea", "spoken"), { value: text });
    ref("copy").after(area);
    area.select();
    done = document.execCommand("copy");
    area.remove();
    ref("copy").focus();
  }
  element.dataset.copied = text;
  say(done ? "Copied as Markdown: one sentence, one table" : "Copying was refused by the browser", true);
}
ref("copy").addEventListener("click", copyMarkdown);
