export interface LogEvent {
  id: number;
  data: { timestamp: string; level: string; message: string; source: string; offset: number };
}

/** Opens a stream of server-sent events and keeps what it gives; `close` is the client's going away. */
export async function openEvents(url: string, headers: Record<string, string> = {}) {
  const client = new AbortController();
  const response = await fetch(url, { headers, signal: client.signal });
  const events: LogEvent[] = [];
  const ended = (async () => {
    let text = "";
    const decoder = new TextDecoder();
    for await (const bytes of response.body ?? []) {
      text += decoder.decode(bytes, { stream: true });
      const blocks = text.split("\n\n");
      text = blocks.pop() ?? "";
      for (const block of blocks) {
        const match = /^event: log\nid: (\d+)\ndata: (.+)$/.exec(block);
        if (match) events.push({ id: Number(match[1]), data: JSON.parse(match[2] ?? "") });
      }
    }
  })();
  ended.catch(() => {});
  return { response, events, ended, close: () => client.abort() };
}
