import { describe, expect, test } from "bun:test";
import type { Channel, Peer } from "../../src/sockets/connection.ts";
import { Connections, type Member } from "../../src/sockets/connections.ts";
import { Tickets } from "../../src/sockets/tickets.ts";
import { until } from "../until.ts";
import { Client } from "./client.ts";
import { actor, serveEndpoint } from "./server.ts";

/** Says who it believes is there, and gives back what it is sent. */
function echo(peer: Peer): Channel {
  peer.send({ type: "welcome", user: peer.actor.userId });
  return {
    message: (message) => peer.send({ type: "echo", message }),
    binary: (frame) => peer.sendBinary(frame),
    drain: () => {},
    closed: () => {},
  };
}

/** A connection as the list of all knows it. */
function memberAt(ip: string, hasCredential = false) {
  const nothing = () => {};
  return {
    ip,
    hasCredential,
    actor: null,
    place: null,
    lastHeardAt: 0,
    ping: nothing,
    end: nothing,
    fail: nothing,
    terminate: nothing,
  };
}

describe("who is there", () => {
  const ways: [string, (url: string, tickets: Tickets) => Client][] = [
    ["a token in the query", (url) => new Client(`${url}?token=token-ada`)],
    ["an Authorization header", (url) => new Client(url, { headers: { Authorization: "Bearer token-ada" } })],
    ["a subprotocol", (url) => new Client(url, { protocols: ["devpocket.v1", "bearer.token-ada"] })],
    ["a subprotocol alone", (url) => new Client(url, { protocols: ["bearer.token-ada"] })],
    ["a ticket", (url, tickets) => new Client(`${url}?ticket=${tickets.issue(actor("ada"))}`)],
    [
      "a first message",
      (url) => {
        const client = new Client(url);
        client.socket.onopen = () => client.send({ type: "auth", token: "token-ada" });
        return client;
      },
    ],
    [
      "a first message with a ticket",
      (url, tickets) => {
        const client = new Client(url);
        client.socket.onopen = () => client.send({ type: "auth", ticket: tickets.issue(actor("ada")) });
        return client;
      },
    ],
  ];
  test.each(ways)("is told by %s", async (_way, connect) => {
    await using server = serveEndpoint(echo);
    const client = connect(server.url, server.tickets);
    expect(await client.next("welcome")).toMatchObject({ user: "ada" });
    client.send({ type: "hello" });
    expect(await client.next("echo")).toEqual({ type: "echo", message: { type: "hello" } });
  });

  test.each<[string, string, string]>([
    ["a token that is not valid", "?token=nonsense", "Could not validate credentials"],
    ["a ticket that nobody issued", "?ticket=nonsense", "Ticket invalid, used or expired"],
  ])("refuses %s with an error message and 1008", async (_what, query, reason) => {
    await using server = serveEndpoint(echo);
    const client = new Client(server.url + query);
    expect(await client.end()).toEqual({ code: 1008, reason });
    expect(client.messages).toEqual([{ type: "error", message: reason }]);
    expect(server.connections.size).toBe(0);
  });

  test.each(["early", "late"])(
    "a message, %s, that can't be dealt with ends its own connection only",
    async (when) => {
      await using server = serveEndpoint((peer) => ({
        ...echo(peer),
        message() {
          throw new Error("the disk is full");
        },
      }));
      const [client, other] = [
        new Client(`${server.url}?token=token-ada`),
        new Client(`${server.url}?token=token-bob`),
      ];
      client.socket.onopen = () => when === "early" && client.send({ type: "hello" });
      await client.next("welcome");
      if (when === "late") client.send({ type: "hello" });
      expect(await client.end()).toEqual({ code: 1011, reason: "Internal server error" });
      await other.next("welcome");
      other.send({ type: "ping" });
      await other.next("pong");
    },
  );

  test("refuses a first message that is no introduction", async () => {
    await using server = serveEndpoint(echo);
    const client = new Client(server.url);
    client.socket.onopen = () => client.send({ type: "input", data: "ls\r" });
    expect(await client.end()).toEqual({ code: 1008, reason: "Authentication required" });
  });

  test("keeps what a client sends before it is known, and takes it in order afterwards", async () => {
    const known = Promise.withResolvers<void>();
    await using server = serveEndpoint(echo, {
      authenticate: async () => {
        await known.promise;
        return actor("ada");
      },
    });
    const client = new Client(`${server.url}?token=x`);
    client.socket.onopen = () => {
      for (let n = 0; n < 5; n++) client.send({ type: "count", n });
      client.socket.ping();
    };
    await until(() => client.socket.readyState === WebSocket.OPEN);
    known.resolve();
    await client.next("echo", 4);
    expect(client.messages.slice(1).map((message) => message.message)).toEqual(
      [0, 1, 2, 3, 4].map((n) => ({ type: "count", n })),
    );
  });

  test("is answered 426 where no upgrade is asked for", async () => {
    await using server = serveEndpoint(echo);
    expect((await fetch(server.httpUrl)).status).toBe(426);
  });
});

describe("tickets", () => {
  test("are good for one connection", async () => {
    await using server = serveEndpoint(echo);
    const ticket = server.tickets.issue(actor("ada"));
    await new Client(`${server.url}?ticket=${ticket}`).next("welcome");
    expect((await new Client(`${server.url}?ticket=${ticket}`).end()).code).toBe(1008);
  });

  test("last 30 seconds, end with their session, and are no more than a limit", () => {
    let now = 0;
    const tickets = new Tickets({ now: () => now, max: 2 });
    const late = tickets.issue(actor("ada"));
    const ended = tickets.issue(actor("bob"));
    expect(() => tickets.issue(actor("eve"))).toThrow("Too many tickets");
    tickets.revokeSession("session-of-bob");
    expect(() => tickets.redeem(ended)).toThrow("Ticket invalid");
    now = 29_999;
    const good = tickets.issue(actor("ada"));
    now = 30_000;
    expect(() => tickets.redeem(late)).toThrow("Ticket invalid");
    expect(tickets.redeem(good).userId).toBe("ada");
  });
});

describe("subprotocols", () => {
  test.each<[string[], string]>([
    [["devpocket.v1.binary", "bearer.token-ada"], "devpocket.v1.binary"],
    [["bearer.token-ada", "devpocket.v1.binary"], "devpocket.v1.binary"],
    [["bearer.token-ada", "devpocket.v1"], "devpocket.v1"],
    [["bearer.token-ada"], "bearer.token-ada"],
  ])("of %p the server takes %p", async (protocols, chosen) => {
    await using server = serveEndpoint(echo);
    const client = new Client(server.url, { protocols });
    await client.next("welcome");
    expect(client.socket.protocol).toBe(chosen);
  });

  test("binary frames are raw with devpocket.v1.binary and JSON without", async () => {
    await using server = serveEndpoint(echo);
    const raw = new Client(`${server.url}?token=token-ada`, { protocols: ["devpocket.v1.binary"] });
    await raw.next("welcome");
    raw.socket.send(new Uint8Array([0, 255, 3]));
    expect(await until(() => raw.binary[0])).toEqual(new Uint8Array([0, 255, 3]));

    const json = new Client(`${server.url}?token=token-ada`);
    await json.next("welcome");
    json.socket.send(new TextEncoder().encode('{"type":"hello"}'));
    expect(await json.next("echo")).toEqual({ type: "echo", message: { type: "hello" } });
  });
});

describe("a browser's Origin", () => {
  test.each<[string, boolean]>([
    ["the server's own", true],
    ["https://app.example.org", true],
    ["https://evil.example.org", false],
    ["null", false],
  ])("%s", async (origin, welcome) => {
    await using server = serveEndpoint(echo, { allowedOrigins: ["https://app.example.org"] });
    const Origin = origin === "the server's own" ? server.origin : origin;
    const client = new Client(`${server.url}?token=token-ada`, { headers: { Origin } });
    if (welcome) await client.next("welcome");
    else expect(await client.end()).toEqual({ code: 1008, reason: "Origin not allowed" });
  });
});

describe("a connection", () => {
  test("is heard of by its own pings too", async () => {
    let member: Member | undefined;
    const connections = new Connections({ perUser: 10 });
    const enter = connections.enter.bind(connections);
    connections.enter = (entering) => {
      member = entering;
      enter(entering);
    };
    await using server = serveEndpoint(echo, { connections });
    const client = new Client(`${server.url}?token=token-ada`);
    await client.next("welcome");
    const before = connections.now();
    client.socket.ping();
    await until(() => member && member.lastHeardAt > before);
  });

  test("answers a ping, complains about what it can't read, and stays", async () => {
    await using server = serveEndpoint(echo);
    const client = new Client(`${server.url}?token=token-ada`);
    await client.next("welcome");
    for (const frame of ["{", "3", "null", "[]", '{"type":7}']) client.socket.send(frame);
    client.send({ type: "ping" });
    await client.next("pong");
    expect(client.types).toEqual(["welcome", "error", "error", "error", "error", "error", "pong"]);
  });

  test("is told once when it sends more nonsense than the limit allows", async () => {
    await using server = serveEndpoint(echo, { messagesPerMinute: 3 });
    const client = new Client(`${server.url}?token=token-ada`);
    await client.next("welcome");
    for (let n = 0; n < 10; n++) client.socket.send("nonsense");
    client.send({ type: "ping" });
    await client.next("pong");
    expect(client.types).toEqual(["welcome", "error", "error", "error", "error", "pong"]);
    expect(client.messages[4]?.message).toBe("Rate limit exceeded. Please slow down.");
  });

  test("ends with 1009 at a frame of more than 1 MiB", async () => {
    await using server = serveEndpoint(echo);
    const client = new Client(`${server.url}?token=token-ada`);
    await client.next("welcome");
    client.socket.send("x".repeat(1024 * 1024 + 1));
    expect((await client.end()).code).toBe(1009);
    await until(() => server.connections.size === 0);
  });

  test("ends with its sign-in session, others stay", async () => {
    await using server = serveEndpoint(echo);
    const ada = new Client(`${server.url}?token=token-ada`);
    const bob = new Client(`${server.url}?token=token-bob`);
    await Promise.all([ada.next("welcome"), bob.next("welcome")]);
    server.connections.closeSession("session-of-ada");
    expect(await ada.end()).toEqual({ code: 1008, reason: "Session ended" });
    bob.send({ type: "ping" });
    await bob.next("pong");
  });

  test("ends with 1001 when the server shuts down, and nobody gets in any more", async () => {
    await using server = serveEndpoint(echo);
    const client = new Client(`${server.url}?token=token-ada`);
    await client.next("welcome");
    server.connections.shutDown();
    expect((await client.end()).code).toBe(1001);
    expect((await new Client(`${server.url}?token=token-ada`).end()).code).toBe(1013);
  });

  test("tells its channel of its end exactly once", async () => {
    let ends = 0;
    await using server = serveEndpoint((peer) => ({ ...echo(peer), closed: () => void ends++ }));
    const client = new Client(`${server.url}?token=token-ada`);
    await client.next("welcome");
    client.socket.close();
    await client.end();
    await until(() => server.connections.size === 0);
    expect(ends).toBe(1);
  });
});

describe("ten connections of one user", () => {
  test("are the most, other users are not concerned", async () => {
    await using server = serveEndpoint(echo);
    const ten = Array.from({ length: 10 }, () => new Client(`${server.url}?token=token-ada`));
    await Promise.all(ten.map((client) => client.next("welcome")));
    const eleventh = new Client(`${server.url}?token=token-ada`);
    expect(await eleventh.end()).toEqual({ code: 1008, reason: "Too many connections" });
    await new Client(`${server.url}?token=token-bob`).next("welcome");

    ten[0]?.socket.close();
    await until(() => server.connections.size === 10);
    await new Client(`${server.url}?token=token-ada`).next("welcome");
  });

  test("make room for another when one of them has been silent for 30 s, to a ping too", async () => {
    let skew = 0;
    const connections = new Connections({ perUser: 2, now: () => performance.now() + skew });
    await using server = serveEndpoint(echo, { connections });
    const silent = new Client(`${server.url}?token=token-ada`);
    await silent.next("welcome");
    const other = new Client(`${server.url}?token=token-ada`);
    await other.next("welcome");
    silent.socket.pause();
    skew = 29_000;
    connections.sweep();
    expect((await new Client(`${server.url}?token=token-ada`).end()).code).toBe(1008);
    skew = 31_000;
    await new Client(`${server.url}?token=token-ada`).next("welcome");
    silent.socket.resume();
    expect(await silent.end()).toEqual({ code: 1008, reason: "Too many connections" });
    expect(silent.messages.at(-1)).toEqual({ type: "error", message: "Too many connections" });
  });

  test("make room by one that is dead, once it has been silent for 30 s, and never by one that answers", () => {
    /** Who has to go when another comes after so many seconds. The answer to a ping takes one. */
    function displaced(seconds: number, answers: boolean[]): number[] {
      let now = 0;
      const gone: number[] = [];
      const connections = new Connections({ perUser: answers.length, now: () => now });
      const members = answers.map((_, n) => {
        const member = {
          ...memberAt("192.0.2.1"),
          isPinged: false,
          ping: () => {
            member.isPinged = true;
          },
          fail: () => void gone.push(n),
        };
        connections.enter(member);
        connections.identify(member, "ada");
        return member;
      });
      for (let second = 1; second <= seconds; second++) {
        now = second * 1000;
        for (const [n, member] of members.entries()) {
          if (member.isPinged && answers[n]) member.lastHeardAt = now;
          member.isPinged = false;
        }
        if (second % 5 === 0) connections.sweep();
      }
      const newcomer = () => connections.identify(memberAt("192.0.2.1"), "ada");
      if (seconds < 30 || !answers.includes(false)) expect(newcomer).toThrow("Too many connections");
      else newcomer();
      return gone;
    }
    for (let seconds = 0; seconds < 90; seconds++) {
      expect(displaced(seconds, [true, false])).toEqual(seconds < 30 ? [] : [1]);
      expect(displaced(seconds, [true, true])).toEqual([]);
    }
  });
});

describe("connections that say nothing", () => {
  test.each<[string, (n: number) => string]>([
    ["an IPv4 address", () => "192.0.2.1"],
    ["an IPv6 site", (n) => `2001:db8:0:7::${n.toString(16)}`],
  ])("are at most 32 of %s; who says who it is gets in", (_what, address) => {
    const connections = new Connections({ perUser: 10 });
    const all = Array.from({ length: 32 }, (_, n) => memberAt(address(n)));
    for (const each of all) connections.enter(each);
    expect(() => connections.enter(memberAt(address(99)))).toThrow(
      expect.objectContaining({ code: "rate_limited" }),
    );
    connections.enter(memberAt(address(99), true));
    connections.enter(memberAt("2001:db8:0:8::1"));
    for (const each of all.slice(0, 2)) connections.leave(each);
    const other = memberAt(address(99));
    connections.enter(other);
    connections.identify(other, "ada");
    connections.enter(memberAt(address(100)));
    connections.enter(memberAt(address(101)));
    expect(() => connections.enter(memberAt(address(102)))).toThrow("Too many connections");
  });

  test("are at most 2048 in all: then others that say nothing are to try again later", () => {
    const connections = new Connections({ perUser: 10 });
    for (let n = 0; n < 2048; n++) connections.enter(memberAt(`10.0.${n >> 8}.${n & 255}`));
    expect(() => connections.enter(memberAt("192.0.2.1"))).toThrow(
      expect.objectContaining({ code: "unavailable" }),
    );
    connections.enter(memberAt("192.0.2.1", true));
  });

  test("shut nobody out who brings a token", async () => {
    await using server = serveEndpoint(echo);
    const silent = Array.from({ length: 32 }, () => new Client(server.url));
    await until(() => server.connections.size === 32);
    expect((await new Client(server.url).end()).code).toBe(1008);
    await new Client(`${server.url}?token=token-ada`).next("welcome");
    expect(silent.every(({ closed }) => closed === null)).toBe(true);
  });
});

describe("keepalive", () => {
  test("closes what belongs to a sign-in session that another process has ended", async () => {
    let skew = 0;
    const asked: string[] = [];
    const connections = new Connections({
      perUser: 10,
      now: () => performance.now() + skew,
      sessionLives(id) {
        asked.push(id);
        return id !== "session-of-ada";
      },
    });
    await using server = serveEndpoint(echo, { connections });
    const anonymous = new Client(server.url);
    const [ada, adaToo, bob] = ["ada", "ada", "bob"].map(
      (user) => new Client(`${server.url}?token=token-${user}`),
    );
    await Promise.all([ada, adaToo, bob].map((client) => client?.next("welcome")));
    await until(() => connections.size === 4);
    connections.sweep();
    expect(asked).toEqual([]);
    skew = 31_000;
    connections.sweep();
    expect(await ada?.end()).toEqual({ code: 1008, reason: "Session ended" });
    expect(await adaToo?.end()).toEqual({ code: 1008, reason: "Session ended" });
    expect(asked.toSorted()).toEqual(["session-of-ada", "session-of-bob"]);
    bob?.send({ type: "ping" });
    await bob?.next("pong");
    expect(anonymous.closed).toBeNull();
  });

  test("pings all the same while it can't be found out whether their sign-in sessions live", () => {
    let now = 0;
    const failures: unknown[] = [];
    const connections = new Connections({
      perUser: 10,
      now: () => now,
      failed: (error) => void failures.push(error),
      sessionLives: () => {
        throw new Error("the database is busy");
      },
    });
    let pings = 0;
    for (const user of ["ada", "bob"]) {
      connections.enter({ ...memberAt("192.0.2.1"), actor: actor(user), ping: () => void pings++ });
    }
    now = 25_000;
    connections.sweep();
    expect({ pings, failures: failures.length }).toEqual({ pings: 2, failures: 2 });
  });

  test("pings every 30 s and ends what has been silent for 90 s", () => {
    let now = 0;
    const connections = new Connections({ perUser: 10, now: () => now });
    const seen: string[] = [];
    const member = (name: string) => ({
      ...memberAt(""),
      ping: () => void seen.push(`${name} pinged`),
      terminate: () => void seen.push(`${name} ended`),
    });
    const [alive, dead] = [member("alive"), member("dead")];
    connections.enter(alive);
    connections.enter(dead);
    for (const at of [24_999, 25_000, 30_000, 60_000]) {
      now = at;
      connections.sweep();
    }
    expect(seen).toEqual(["alive pinged", "dead pinged", "alive pinged", "dead pinged"]);
    alive.lastHeardAt = 60_000;
    now = 90_000;
    connections.sweep();
    expect(seen.slice(4)).toEqual(["alive pinged", "dead ended"]);
  });
});
