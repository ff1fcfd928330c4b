// cuFile: files read into a device's memory and written from it, in calls that end when the bytes are there.
namespace {

struct Descriptor {
    int type, padding;
    int file;
    const void* operations;
};
struct Properties {
    u32 major, minor;
    u64 poll_threshold, most_direct;
    u32 status, control;
};
struct Status {
    int error, cuda;
};
enum { OpaqueFile = 1, DriverError = 5010, BadPointer = 5012, WrongContext = 5015, NvmeSupported = 1 << 4 };
long long files_open = 0;

// What a transfer of cuFile's returns: bytes, -1 with errno, or a negated code of its own.
template <class Carry>
long long file_transfer(const char* call, u64 memory, size_t bytes, Carry carry) {
    Lock guard(lock);
    if (int code = verdict(call)) {
        // Codes of cuFile's own begin at 5000; those below are the system's.
        if (code >= 5000) return -code;
        errno = code;
        return -1;
    }
    if (current == nullptr) return -WrongContext;
    if (!allocated(current->device, memory, bytes)) return -BadPointer;
    if (short_by > 0) bytes = std::min<u64>(bytes, short_by);
    // The system needs memory at a page's beginning for direct transfers.
    void* pages = nullptr;
    size_t room = (bytes + 4095) / 4096 * 4096;
    if (posix_memalign(&pages, 4096, std::max<size_t>(room, 4096)) != 0) return -BadPointer;
    long long carried = carry((char*)pages, bytes, room);
    std::free(pages);
    return carried;
}

}  // namespace

// A transfer carries no more than so many bytes at once, from now on; any number where 0.
extern "C" void hotset_double_short(u64 bytes) {
    Lock guard(lock);
    short_by = bytes;
}
// Files registered with cuFile.
extern "C" long long hotset_double_files() {
    Lock guard(lock);
    return files_open;
}

#define FILE_CALL(name, ...)              \
    extern "C" Status name(__VA_ARGS__) { \
        Lock guard(lock);                 \
        if (int code = verdict(#name)) return {code, 0};
#define FILE_END   \
    return {0, 0}; \
    }

FILE_CALL(cuFileDriverOpen) FILE_END
FILE_CALL(cuFileDriverGetProperties, Properties* properties)
    *properties = {2, 25, 4, 16384, NvmeSupported, 0};
FILE_END
FILE_CALL(cuFileHandleRegister, void** handle, Descriptor* descriptor)
    if (descriptor->type != OpaqueFile) return {DriverError, 0};
    *handle = new int(descriptor->file);
    files_open++;
FILE_END
extern "C" void cuFileHandleDeregister(void* handle) {
    Lock guard(lock);
    files_open--;
    delete (int*)handle;
}
extern "C" long long cuFileRead(void* handle, void* memory, size_t bytes, long long at, long long offset) {
    u64 to = (u64)memory + offset;
    return file_transfer("cuFileRead", to, bytes, [&](char* pages, size_t bytes, size_t room) -> long long {
        long long carried = std::min<long long>(pread(*(int*)handle, pages, room, at), bytes);
        if (carried <= 0) return carried;
        Opened opened(current->device);
        std::memcpy((void*)to, pages, carried);
        return carried;
    });
}
extern "C" long long cuFileWrite(void* handle, const void* memory, size_t bytes, long long at, long long offset) {
    u64 from = (u64)memory + offset;
    return file_transfer("cuFileWrite", from, bytes, [&](char* pages, size_t bytes, size_t room) -> long long {
        // What follows in the last block stays as it is.
        if (room != bytes && pread(*(int*)handle, pages, room, at) < 0) return -1;
        Opened opened(current->device);
        std::memcpy(pages, (const void*)from, bytes);
        return std::min<long long>(pwrite(*(int*)handle, pages, room, at), bytes);
    });
}
