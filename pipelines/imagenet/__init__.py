"""ImageNet's classes (ILSVRC2012): their numberings, and the files that its labels are handed out in."""
