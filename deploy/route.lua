-- Orthanc sends rapid whole-body bone scans to the node and keeps what comes back.

local MODALITY = 'rbs'    -- as in DicomModalities of orthanc.json
local TITLE = 'RBS'       -- its AE title
local STANDARD = 3.4      -- mm/s: a scan at 20 cm/min (3.33 mm/s) or slower is no rapid one
local KEEP_TRYING = 3 * 24 * 3600  -- seconds

-- True for an acquired whole-body scan that is faster than the standard, or of unknown speed.
function IsRapid(tags)
   local kind = tags.ImageType or ''
   local velocity = tonumber(tags.ScanVelocity or '')
   return tags.Modality == 'NM'
      and not kind:find('^DERIVED')
      and (kind == '' or kind:find('WHOLE ?BODY') ~= nil)
      and (velocity == nil or velocity == 0 or velocity > STANDARD)
end

-- Sends again what the node did not take: it was down, or its disk was full.
function TryAgain()
   local since = os.date('!%Y%m%dT%H%M%S', os.time() - KEEP_TRYING)
   for _, job in ipairs(ParseJson(RestApiGet('/jobs?expand'))) do
      if job.State == 'Failure' and job.Type == 'DicomModalityStore'
         and job.Content.RemoteAet == TITLE and job.CreationTime > since then
         RestApiPost('/jobs/' .. job.ID .. '/resubmit', '')
      end
   end
end

function OnStoredInstance(instance, tags, metadata, origin)
   TryAgain()
   if origin.RemoteAet ~= TITLE and IsRapid(tags) then
      local order = {Resources = {instance}, Synchronous = false}
      RestApiPost('/modalities/' .. MODALITY .. '/store', DumpJson(order, true))
   end
end

-- Every LuaHeartBeatPeriod seconds, in Orthanc 1.11 and later.
function OnHeartBeat()
   TryAgain()
end
