import { mainJob } from "./main-job.ts";

mainJob("the source tree", () => undefined);
