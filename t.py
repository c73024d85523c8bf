import time,sys
from ivcapfs.client import connect
from ivcapfs.config import ClientSettings
c=connect(ClientSettings(sys.argv[1]))
arts=[a for a in c.api.iter_artifacts() if a.name=='big.bin']
a=arts[0]
buf=memoryview(bytearray(8<<20))
for _ in range(3):
    t=time.time(); cpu=time.process_time(); pos=0; reads=0
    while pos<a.size:
        n=min(8<<20,a.size-pos)
        with c.blobs.open_range(a.uuid,pos,pos+n,expected=None) as s:
            p=0
            while p<n:
                g=s.readinto(buf[p:n]); p+=g; reads+=1
        pos+=n
    dt=time.time()-t
    print(f"{a.size/dt/1e9:.2f} GB/s cpu {time.process_time()-cpu:.2f} reads {reads}")
c.close()
