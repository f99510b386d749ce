import { describe, expect, test } from "bun:test";
import { linkHeader, PageQuery } from "../../src/http/pagination.ts";

describe("the query of a list", () => {
  test("has defaults", () => {
    expect(PageQuery.parse({})).toEqual({ limit: 50, offset: 0 });
  });

  test.each([
    [{ limit: "1" }, { limit: 1, offset: 0 }],
    [
      { limit: "200", offset: "1000000000" },
      { limit: 200, offset: 1_000_000_000 },
    ],
    [{ limit: "007" }, { limit: 7, offset: 0 }],
  ])("takes %j", (query, page) => {
    expect(PageQuery.parse(query)).toEqual(page);
  });

  test.each([
    { limit: "0" },
    { limit: "201" },
    { limit: "" },
    { limit: " 5" },
    { limit: "1e2" },
    { limit: "0x10" },
    { limit: "-1" },
    { limit: "5.5" },
    { limit: ["1", "2"] },
    { offset: "-1" },
    { offset: "99999999999999999999" },
  ])("refuses %j", (query) => {
    expect(PageQuery.safeParse(query).success).toBeFalse();
  });
});

describe("the Link header", () => {
  const link = (query: string, limit: number, offset: number, total: number) =>
    linkHeader(new URLSearchParams(query), { limit, offset }, total);

  test("names only what there is", () => {
    expect(link("", 50, 0, 0)).toBe('<?limit=50&offset=0>; rel="first", <?limit=50&offset=0>; rel="last"');
  });

  test("names the pages around one in the middle, and keeps the filter", () => {
    expect(link("?status=running&offset=10&limit=5", 5, 10, 23)).toBe(
      [
        '<?status=running&offset=0&limit=5>; rel="first"',
        '<?status=running&offset=5&limit=5>; rel="prev"',
        '<?status=running&offset=15&limit=5>; rel="next"',
        '<?status=running&offset=20&limit=5>; rel="last"',
      ].join(", "),
    );
  });

  test("has no next on a last page that is full", () => {
    expect(link("", 5, 15, 20)).not.toContain("next");
  });

  test("leads back from beyond the end", () => {
    expect(link("", 5, 1000, 20)).toContain('offset=15>; rel="prev"');
  });

  test("can't be broken out of by a value", () => {
    expect(link("?name=a%3E%3B%20rel%3D%22x", 5, 0, 1)).not.toMatch(/a>/);
  });
});
