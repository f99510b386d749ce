import { SOURCE } from "../harness.ts";
import { mainJob } from "./main-job.ts";

mainJob("the source tree", () => SOURCE);
