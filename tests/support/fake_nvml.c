/* A libnvidia-ml.so.1 with four known GPUs, for tests on machines without one.

   Device d (0..3) reports: utilisation 10(d+1) %, memory used (d+1) GiB of 80 GiB (plus 1 GiB that the driver reserves), power
   100(d+1) W + 0.25 W, temperature 40+d C, SM clock 1000+d MHz, memory clock 2000+d MHz, JPEG engine 5(d+1) %. NVML's
   order is not the PCI order: index 0 sits on the highest bus.
   Clock event reasons: device 0 none, 1 GpuIdle, 2 SwPowerCap + HwThermalSlowdown, 3 Reliability + a bit without a name.
   Device 3 supports no power query and is lost when asked for its temperature.
   Energy 1000(d+1) J + 0.125 J; device 3 doesn't count it. Compute processes: 1, 2, 0 and 3.
   GPM works on devices 0 and 1, not on 2, and 3 doesn't support the question. Between a sample and the next one of the same
   device it reports SMs 60+d+0.5 %, memory bandwidth 30+d+0.25 %, and for 2+d JPEG engines 10, 20, 30 %; between others
   nothing. NVML does not end while a GPM sample is allocated.

   The driver is 550.54.15, for CUDA 12.4; every device has compute capability 9.0 and is not in MIG mode.

   FAKE_NVML_COUNT=n          n of the four devices
   FAKE_NVML_INIT_ERROR=code  what initialising returns
   FAKE_NVML_DRIVER=text      the driver's version
   FAKE_NVML_CUDA=number      the driver's CUDA, such as 12040 for 12.4; with -1 the question fails
   FAKE_NVML_CAPABILITY=d:n,.. the compute capability of device d, such as 100 for 10.0
   FAKE_NVML_MIG=d,..         the devices in MIG mode
   FAKE_NVML_USED=gib         what is used of every device's memory, by the version of the query without a version
   FAKE_NVML_PID=number       the first process of each device, instead of 100; 0: the one that asks
   FAKE_NVML_FAIL=d:q:code,.. what query q of device d returns; q is one of handle name uuid pci util memory power temperature
                              sm_clock memory_clock reasons jpeg energy processes capability mig gpm_support gpm_sample gpm_metrics
                              gpm_sm gpm_dram gpm_jpeg, or all of them; and with -1 for d, as it is asked of no
                              device, gpm_alloc. It is looked at with every query, so that a process can change it.
   Compiled with -DOLD_DRIVER it lacks what drivers before 535 lack, and of older ones GPM and the newest list of processes.
   Compiled with -DOTHER_VENDOR it lacks what the header of Iluvatar's libixml.so doesn't declare either: the newer way to
   initialise, energy, and the second version of the list of processes.
   Layouts and codes: the public ABI of nvml.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7, GPU_IS_LOST = 15,
       IN_USE = 19 };
enum { DEVICES = 4 };
#define GIB (1ULL << 30)

typedef struct { int index; } Device;
typedef struct { unsigned gpu, memory; } Utilization;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } Memory2;
typedef struct { unsigned version, sensor; int celsius; } Temperature;
typedef struct {
    char legacy[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
} PciInfo;

typedef struct { unsigned pid; unsigned long long memory; unsigned gpu_instance, compute_instance; } Process;
typedef struct { unsigned version, supported; } GpmSupport;
typedef struct { const Device *device; unsigned long taken; } GpmSample;
typedef struct {
    unsigned id;
    int code;
    double value;
    char *texts[3];
} GpmMetric;
typedef struct {
    unsigned version, count;
    GpmSample *older, *newer;
    GpmMetric metrics[];
} GpmMetrics;

static Device devices[DEVICES] = {{0}, {1}, {2}, {3}};
static const unsigned buses[DEVICES] = {0xC1, 0x17, 0x31, 0x65};
static int users = 0;
static int gpm_samples = 0;

static int configured(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text && *text ? atoi(text) : otherwise;
}

static int answer(const Device *device, const char *query) {
    char key[64];
    const char *all = getenv("FAKE_NVML_FAIL"), *found;
    if (users == 0) return UNINITIALIZED;
    snprintf(key, sizeof key, "%d:%s:", device->index, query);
    if (all && (found = strstr(all, key))) return atoi(found + strlen(key));
    snprintf(key, sizeof key, "%d:all:", device->index);
    if (all && (found = strstr(all, key))) return atoi(found + strlen(key));
    if (device->index == 3 && !strcmp(query, "power")) return NOT_SUPPORTED;
    if (device->index == 3 && !strcmp(query, "temperature")) return GPU_IS_LOST;
    if (device->index == 3 && !strcmp(query, "energy")) return NOT_SUPPORTED;
    if (device->index == 3 && !strcmp(query, "gpm_support")) return NOT_SUPPORTED;
    return SUCCESS;
}

static int copy(char *to, unsigned size, const char *text) {
    if (strlen(text) >= size) return INSUFFICIENT_SIZE;
    strcpy(to, text);
    return SUCCESS;
}

#ifdef OTHER_VENDOR
#define NVIDIAS_ONLY static __attribute__((unused))
#else
#define NVIDIAS_ONLY
#endif

#define REQUIRE(device, query)                   \
    do {                                         \
        int code = answer((device), (query));    \
        if (code != SUCCESS) return code;        \
    } while (0)

NVIDIAS_ONLY int nvmlInitWithFlags(unsigned flags) {
    int code = configured("FAKE_NVML_INIT_ERROR", SUCCESS);
    (void)flags;
    if (code == SUCCESS) users++;
    return code;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) {
    if (users == 0) return UNINITIALIZED;
    if (gpm_samples != 0) return IN_USE;
    users--;
    return SUCCESS;
}
const char *nvmlErrorString(int code) { return code == SUCCESS ? "Success" : "an error of the stand-in"; }

int nvmlSystemGetDriverVersion(char *version, unsigned size) {
    const char *text = getenv("FAKE_NVML_DRIVER");
    return users == 0 ? UNINITIALIZED : copy(version, size, text ? text : "550.54.15");
}
int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    *version = configured("FAKE_NVML_CUDA", 12040);
    return users == 0 ? UNINITIALIZED : *version < 0 ? NOT_SUPPORTED : SUCCESS;
}
int nvmlDeviceGetCount_v2(unsigned *count) {
    if (users == 0) return UNINITIALIZED;
    *count = (unsigned)configured("FAKE_NVML_COUNT", DEVICES);
    return SUCCESS;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **device) {
    if (index >= (unsigned)configured("FAKE_NVML_COUNT", DEVICES) || index >= DEVICES) return INVALID_ARGUMENT;
    REQUIRE(&devices[index], "handle");
    *device = &devices[index];
    return SUCCESS;
}

int nvmlDeviceGetName(Device *device, char *name, unsigned size) {
    REQUIRE(device, "name");
    return copy(name, size, "Stand-in 80GB");
}
int nvmlDeviceGetUUID(Device *device, char *uuid, unsigned size) {
    char text[64];
    REQUIRE(device, "uuid");
    snprintf(text, sizeof text, "GPU-%d0000000-aaaa-bbbb-cccc-00000000000%d", device->index, device->index);
    return copy(uuid, size, text);
}
int nvmlDeviceGetPciInfo_v3(Device *device, PciInfo *info) {
    REQUIRE(device, "pci");
    memset(info, 0, sizeof *info);
    info->bus = buses[device->index];
    snprintf(info->legacy, sizeof info->legacy, "0000:%02X:00.0", info->bus);
    snprintf(info->bus_id, sizeof info->bus_id, "00000000:%02X:00.0", info->bus);
    return SUCCESS;
}

int nvmlDeviceGetCudaComputeCapability(Device *device, int *major, int *minor) {
    char key[8];
    const char *all = getenv("FAKE_NVML_CAPABILITY"), *found;
    int number = 90;
    REQUIRE(device, "capability");
    snprintf(key, sizeof key, "%d:", device->index);
    if (all && (found = strstr(all, key))) number = atoi(found + strlen(key));
    *major = number / 10;
    *minor = number % 10;
    return SUCCESS;
}
NVIDIAS_ONLY int nvmlDeviceGetMigMode(Device *device, unsigned *current, unsigned *pending) {
    const char *split = getenv("FAKE_NVML_MIG");
    REQUIRE(device, "mig");
    *current = split && strchr(split, '0' + device->index);
    *pending = *current;
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(Device *device, Utilization *utilization) {
    REQUIRE(device, "util");
    utilization->gpu = 10u * (unsigned)(device->index + 1);
    utilization->memory = 1;
    return SUCCESS;
}
int nvmlDeviceGetMemoryInfo(Device *device, Memory *memory) {
    REQUIRE(device, "memory");
    memory->total = 80 * GIB;
    memory->used = (unsigned long long)configured("FAKE_NVML_USED", device->index + 2) * GIB;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}
int nvmlDeviceGetPowerUsage(Device *device, unsigned *milliwatts) {
    REQUIRE(device, "power");
    *milliwatts = 100000u * (unsigned)(device->index + 1) + 250u;
    return SUCCESS;
}
int nvmlDeviceGetTemperature(Device *device, unsigned sensor, unsigned *celsius) {
    if (sensor != 0) return INVALID_ARGUMENT;
    REQUIRE(device, "temperature");
    *celsius = 40u + (unsigned)device->index;
    return SUCCESS;
}
int nvmlDeviceGetClockInfo(Device *device, unsigned type, unsigned *mhz) {
    if (type != 1 && type != 2) return INVALID_ARGUMENT;
    REQUIRE(device, type == 1 ? "sm_clock" : "memory_clock");
    *mhz = 1000u * type + (unsigned)device->index;
    return SUCCESS;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(Device *device, unsigned long long *bits) {
    static const unsigned long long reasons[DEVICES] = {0x0, 0x1, 0x44, 0x80000400};
    REQUIRE(device, "reasons");
    *bits = reasons[device->index];
    return SUCCESS;
}
NVIDIAS_ONLY int nvmlDeviceGetTotalEnergyConsumption(Device *device, unsigned long long *millijoules) {
    REQUIRE(device, "energy");
    *millijoules = 1000000ULL * (unsigned long long)(device->index + 1) + 125ULL;
    return SUCCESS;
}
NVIDIAS_ONLY int nvmlDeviceGetComputeRunningProcesses_v2(Device *device, unsigned *count, Process *processes) {
    static const unsigned running[DEVICES] = {1, 2, 0, 3};
    unsigned room = *count, first = (unsigned)configured("FAKE_NVML_PID", 100);
    if (!first) first = (unsigned)getpid();
    REQUIRE(device, "processes");
    *count = running[device->index];
    if (room < *count) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < *count; i++) processes[i] = (Process){first + i, GIB, ~0u, ~0u};
    return SUCCESS;
}

#ifndef OLD_DRIVER
int nvmlDeviceGetComputeRunningProcesses_v3(Device *device, unsigned *count, Process *processes) {
    return nvmlDeviceGetComputeRunningProcesses_v2(device, count, processes);
}
int nvmlGpmQueryDeviceSupport(Device *device, GpmSupport *support) {
    if (support->version != 1) return INVALID_ARGUMENT;
    REQUIRE(device, "gpm_support");
    support->supported = device->index < 2;
    return SUCCESS;
}
int nvmlGpmSampleAlloc(GpmSample **sample) {
    static const Device none = {-1};
    REQUIRE(&none, "gpm_alloc");
    *sample = calloc(1, sizeof **sample);
    gpm_samples++;
    return SUCCESS;
}
int nvmlGpmSampleFree(GpmSample *sample) {
    free(sample);
    gpm_samples--;
    return SUCCESS;
}
int nvmlGpmSampleGet(Device *device, GpmSample *sample) {
    static unsigned long taken[DEVICES];
    if (device->index >= 2) return NOT_SUPPORTED;
    REQUIRE(device, "gpm_sample");
    sample->device = device;
    sample->taken = ++taken[device->index];
    return SUCCESS;
}
int nvmlGpmMetricsGet(GpmMetrics *request) {
    const Device *device = request->newer->device;
    if (request->version != 1 || !device || request->older->device != device) return INVALID_ARGUMENT;
    if (request->newer->taken != request->older->taken + 1) return INVALID_ARGUMENT;
    REQUIRE(device, "gpm_metrics");
    for (unsigned i = 0; i < request->count; i++) {
        GpmMetric *metric = &request->metrics[i];
        if (metric->id == 2) {
            metric->code = answer(device, "gpm_sm");
            metric->value = 60.5 + device->index;
        } else if (metric->id == 10) {
            metric->code = answer(device, "gpm_dram");
            metric->value = 30.25 + device->index;
        } else if (metric->id >= 40 && metric->id < 42u + (unsigned)device->index) {
            metric->code = answer(device, "gpm_jpeg");
            metric->value = 10.0 * (metric->id - 39);
        } else {
            metric->code = NOT_SUPPORTED;
            metric->value = 99.0;
        }
    }
    return SUCCESS;
}
int nvmlDeviceGetMemoryInfo_v2(Device *device, Memory2 *memory) {
    if (memory->version != (sizeof(Memory2) | 2u << 24)) return INVALID_ARGUMENT;
    REQUIRE(device, "memory");
    memory->total = 80 * GIB;
    memory->reserved = GIB;
    memory->used = (unsigned long long)(device->index + 1) * GIB;
    memory->free = memory->total - memory->reserved - memory->used;
    return SUCCESS;
}
int nvmlDeviceGetTemperatureV(Device *device, Temperature *temperature) {
    unsigned celsius = 0;
    int code;
    if (temperature->version != (sizeof(Temperature) | 1u << 24)) return INVALID_ARGUMENT;
    code = nvmlDeviceGetTemperature(device, temperature->sensor, &celsius);
    if (code == SUCCESS) temperature->celsius = (int)celsius;
    return code;
}
int nvmlDeviceGetCurrentClocksEventReasons(Device *device, unsigned long long *bits) {
    return nvmlDeviceGetCurrentClocksThrottleReasons(device, bits);
}
int nvmlDeviceGetJpgUtilization(Device *device, unsigned *percent, unsigned *period_microseconds) {
    REQUIRE(device, "jpeg");
    *percent = 5u * (unsigned)(device->index + 1);
    *period_microseconds = 166000;
    return SUCCESS;
}
#endif
