/* A double of the GPU driver's library libnvidia-ml.so.1; see README.md beside it.
 *
 * It has the functions that src/stats/gpu.rs calls, and answers with numbers that a test can tell apart:
 * GPU i is i * 10 + 7 percent busy, uses (i + 1) GiB of 80 GiB, is 40 + i degrees warm and draws 100 + i watts. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int nvmlReturn_t;
typedef struct device *nvmlDevice_t;
typedef struct {
    unsigned int gpu, memory;
} nvmlUtilization_t;
typedef struct {
    unsigned int version;
    unsigned long long total, reserved, free, used;
} nvmlMemory_v2_t;

typedef struct {
    unsigned int pid;
    unsigned long long usedGpuMemory;
    unsigned int gpuInstanceId, computeInstanceId;
} nvmlProcessInfo_t;
typedef struct {
    nvmlDevice_t device;
    unsigned long long eventType, eventData;
    unsigned int gpuInstanceId, computeInstanceId;
} nvmlEventData_t;
typedef void *nvmlEventSet_t;

enum {
    SUCCESS = 0,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    TIMEOUT = 10,
    GPU_IS_LOST = 15,
    UNKNOWN = 999
};
enum { XID_ERROR = 8 };
/* Handles of slices begin here; those of GPUs are below. */
enum { SLICE = 1000, MOST_SLICES = 7, SLICES = 2 };

static const unsigned long long GIB = 1ULL << 30;

static int setting(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text && *text ? atoi(text) : otherwise;
}

/* How often this was asked before; kept where closing and opening the library again does not lose it. */
static int calls(const char *name) {
    int before = setting(name, 0);
    char text[16];
    snprintf(text, sizeof text, "%d", before + 1);
    setenv(name, text, 1);
    return before;
}

static int is_slice(nvmlDevice_t device) { return (intptr_t)device >= SLICE; }

static int number_of(nvmlDevice_t device) {
    return is_slice(device) ? setting("NVML_DOUBLE_DIVIDED", 0) : (int)(intptr_t)device - 1;
}

static int is_divided(nvmlDevice_t device) {
    return !is_slice(device) && number_of(device) == setting("NVML_DOUBLE_DIVIDED", -1);
}

static nvmlReturn_t judge(nvmlDevice_t device) {
    return number_of(device) == setting("NVML_DOUBLE_LOST", -1) ? GPU_IS_LOST : SUCCESS;
}

nvmlReturn_t nvmlInit_v2(void) {
    int failures = setting("NVML_DOUBLE_FAIL_INIT", 0);
    return failures > 0 && calls("NVML_DOUBLE_INITS") < failures ? DRIVER_NOT_LOADED : SUCCESS;
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version) {
    *version = setting("NVML_DOUBLE_CUDA", 0);
    return *version > 0 ? SUCCESS : NOT_SUPPORTED;
}

nvmlReturn_t nvmlShutdown(void) { return SUCCESS; }

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count) {
    int failures = setting("NVML_DOUBLE_FAIL", 0);
    if (failures > 0) {
        int call = calls("NVML_DOUBLE_COUNTS"), first = setting("NVML_DOUBLE_FAIL_FROM", 0);
        if (call >= first && call < first + failures)
            return UNKNOWN;
    }
    *count = (unsigned int)setting("NVML_DOUBLE_GPUS", 1);
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device) {
    if ((int)index >= setting("NVML_DOUBLE_GPUS", 1))
        return INVALID_ARGUMENT;
    *device = (nvmlDevice_t)(intptr_t)(index + 1);
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *utilization) {
    if (judge(device) != SUCCESS)
        return judge(device);
    if (setting("NVML_DOUBLE_NO_UTILIZATION", 0) || is_slice(device))
        return NOT_SUPPORTED;
    utilization->gpu = (unsigned int)(number_of(device) * 10 + 7);
    utilization->memory = 5;
    return SUCCESS;
}

static int knows_processes(nvmlDevice_t device) { return getenv("NVML_DOUBLE_PROCESSES") && !is_slice(device); }

/* The processes on a GPU, at most `room` of them written down, and the bytes that they use. The file is read anew each
 * time: a process under test may write itself into it. */
static unsigned int processes(nvmlDevice_t device, nvmlProcessInfo_t *found, unsigned int room, unsigned long long *bytes) {
    FILE *file = fopen(getenv("NVML_DOUBLE_PROCESSES"), "r");
    unsigned int count = 0, pid;
    unsigned long long mib;
    int gpu;
    *bytes = 0;
    while (file && fscanf(file, "%d %u %llu", &gpu, &pid, &mib) == 3) {
        if (gpu != number_of(device))
            continue;
        *bytes += mib << 20;
        if (pid == 0)
            continue;
        if (count < room)
            found[count] = (nvmlProcessInfo_t){pid, mib << 20, ~0U, ~0U};
        count++;
    }
    if (file)
        fclose(file);
    return count;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_t *found) {
    if (judge(device) != SUCCESS)
        return judge(device);
    if (!knows_processes(device))
        return NOT_SUPPORTED;
    unsigned long long bytes;
    unsigned int room = found ? *count : 0;
    *count = processes(device, found, room, &bytes);
    return *count > room ? INSUFFICIENT_SIZE : SUCCESS;
}

nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_t *found) {
    (void)found;
    if (!knows_processes(device))
        return NOT_SUPPORTED;
    *count = 0;
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory) {
    if (judge(device) != SUCCESS)
        return judge(device);
    memory->total = (is_slice(device) ? 10 : 80) * GIB;
    memory->reserved = 0;
    memory->used = (unsigned long long)(is_slice(device) ? (intptr_t)device - SLICE + 3 : number_of(device) + 1) * GIB;
    if (knows_processes(device))
        processes(device, NULL, 0, &memory->used);
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, int sensor, unsigned int *temperature) {
    (void)sensor;
    if (judge(device) != SUCCESS)
        return judge(device);
    if (is_slice(device))
        return NOT_SUPPORTED;
    *temperature = (unsigned int)(40 + number_of(device));
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int *milliwatts) {
    if (judge(device) != SUCCESS)
        return judge(device);
    if (is_slice(device))
        return NOT_SUPPORTED;
    *milliwatts = (unsigned int)((100 + number_of(device)) * 1000);
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending) {
    *current = *pending = (unsigned int)is_divided(device);
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned int *count) {
    *count = is_divided(device) ? MOST_SLICES : 0;
    return SUCCESS;
}

/* Not every place for a slice has one. */
nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index, nvmlDevice_t *slice) {
    if (!is_divided(device))
        return INVALID_ARGUMENT;
    if (index >= SLICES)
        return NOT_FOUND;
    *slice = (nvmlDevice_t)(intptr_t)(SLICE + index);
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int *index) {
    *index = (unsigned int)number_of(device);
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t device, unsigned long long *types) {
    *types = XID_ERROR;
    return judge(device);
}

static int a_set, told, waited;

nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set) {
    *set = &a_set;
    return SUCCESS;
}

nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set) { return set == &a_set ? SUCCESS : INVALID_ARGUMENT; }

nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, nvmlEventSet_t set) {
    return judge(device) == SUCCESS && types == XID_ERROR && set == &a_set ? SUCCESS : INVALID_ARGUMENT;
}

/* The number in this place of the list NVML_DOUBLE_XID; 0 behind its end. */
static unsigned long long xid(int place) {
    const char *text = getenv("NVML_DOUBLE_XID");
    for (; text && place > 0; place--) {
        text = strchr(text, ',');
        if (text)
            text++;
    }
    return text ? strtoull(text, NULL, 10) : 0;
}

/* One fault after the other, on the last GPU; then none. Beside a GPU that is lost the first wait says just that. */
nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int milliseconds) {
    if (set != &a_set)
        return INVALID_ARGUMENT;
    if (waited++ == 0 && setting("NVML_DOUBLE_LOST", -1) >= 0)
        return GPU_IS_LOST;
    unsigned long long number = xid(told);
    if (number == 0) {
        usleep(milliseconds * 1000);
        return TIMEOUT;
    }
    told++;
    data->device = (nvmlDevice_t)(intptr_t)setting("NVML_DOUBLE_GPUS", 1);
    data->eventType = XID_ERROR;
    data->eventData = number;
    return SUCCESS;
}
